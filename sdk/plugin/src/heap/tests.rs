//! Blocks that are alive keep their bytes, whatever is handed out and given back around them.

use super::*;

/// A block and the byte that fills it.
struct Block {
    start: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Block {
    fn new(heap: &Heap, size: usize, align: usize, byte: u8) -> Self {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is not 0.
        let start = unsafe { heap.alloc(layout) };
        assert!(!start.is_null() && start.addr().is_multiple_of(align));
        let block = Self {
            start,
            layout,
            byte,
        };
        block.fill();
        block
    }

    fn fill(&self) {
        // SAFETY: the block is alive and has this many bytes.
        unsafe { self.start.write_bytes(self.byte, self.layout.size()) };
    }

    fn check(&self) {
        // SAFETY: the block is alive, has this many bytes, and all of them were written.
        let bytes = unsafe { core::slice::from_raw_parts(self.start, self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.byte), "overwritten");
    }

    fn grow(&mut self, heap: &Heap, size: usize) {
        // SAFETY: the block is alive with this layout, and the size is not 0.
        self.start = unsafe { heap.realloc(self.start, self.layout, size) };
        let kept = self.layout.size().min(size);
        self.layout = Layout::from_size_align(kept, self.layout.align()).unwrap();
        self.check();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        self.fill();
    }

    fn free(self, heap: &Heap) {
        self.check();
        // SAFETY: the block is alive with this layout, and is gone after this.
        unsafe { heap.dealloc(self.start, self.layout) };
    }

    fn is_in(&self, heap: &Heap) -> bool {
        heap.owns(self.start)
    }
}

#[test]
fn blocks_keep_their_bytes_in_any_order_of_calls() {
    let heap = Box::new(Heap::new());
    let mut blocks: Vec<Block> = Vec::new();
    // Numerical Recipes' generator: any sequence will do, as long as it is the same each time.
    let mut seed = 1_u32;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    for step in 0..4000 {
        match next(4) {
            0 | 1 if blocks.len() < 400 => {
                let block = Block::new(&heap, 1 + next(3000), 1 << next(6), (step % 251) as u8);
                blocks.push(block);
            }
            2 if !blocks.is_empty() => {
                let at = next(blocks.len());
                blocks.swap_remove(at).free(&heap);
            }
            _ if !blocks.is_empty() => {
                let at = next(blocks.len());
                blocks[at].grow(&heap, 1 + next(4000));
            }
            _ => {}
        }
        blocks.iter().for_each(Block::check);
    }
    assert!(
        blocks.iter().any(|block| block.is_in(&heap))
            && blocks.iter().any(|block| !block.is_in(&heap))
    );
    blocks.into_iter().for_each(|block| block.free(&heap));
    assert_eq!((heap.at.get(), heap.alive.get()), (heap.first(), 0));
}

#[test]
fn arenas_are_empty_again_when_nothing_is_alive_and_full_ones_are_left_alone() {
    let heap = Box::new(Heap::new());
    for round in 0..3 {
        let first = Block::new(&heap, SIZE, 16, 1);
        assert_eq!(first.start, heap.first(), "{round}");
        let second = Block::new(&heap, MORE, 16, 2);
        assert_eq!(second.start, heap.more.get(), "{round}");
        let third = Block::new(&heap, 1, 1, 3);
        assert!(!third.is_in(&heap), "{round}");
        first.free(&heap);
        let fourth = Block::new(&heap, 1, 1, 4);
        assert!(!fourth.is_in(&heap), "the second is in use: {round}");
        second.free(&heap);
        third.free(&heap);
        fourth.free(&heap);
    }
}

#[test]
fn block_that_no_arena_has_room_for_is_the_systems_and_leaves_both_as_they_are() {
    let heap = Box::new(Heap::new());
    let small = Block::new(&heap, 8, 8, 1);
    let large = Block::new(&heap, MORE + 1, 16, 2);
    let aligned = Block::new(&heap, 8, 64, 3);
    assert!(!large.is_in(&heap) && !aligned.is_in(&heap));
    assert_eq!(
        (heap.start.get(), heap.more.get().is_null()),
        (heap.first(), true)
    );
    for block in [small, large, aligned] {
        block.free(&heap);
    }
}

#[test]
fn last_block_grows_and_shrinks_where_it_is() {
    let heap = Box::new(Heap::new());
    let first = Block::new(&heap, 100, 8, 1);
    let mut last = Block::new(&heap, 100, 8, 2);
    let start = last.start;
    let used = || heap.at.get().addr() - heap.first().addr();
    last.grow(&heap, SIZE - 104);
    assert_eq!(last.start, start);
    last.grow(&heap, 10);
    assert_eq!((last.start, used()), (start, 114));
    last.grow(&heap, SIZE);
    assert_eq!(last.start, heap.more.get(), "it does not fit any more");
    // The arena in use is the second.
    last.grow(&heap, MORE);
    assert_eq!(last.start, heap.more.get());
    last.grow(&heap, MORE + 1);
    assert!(!last.is_in(&heap), "nor into the second");
    assert_eq!(heap.at.get(), heap.more.get(), "its place is free");
    first.free(&heap);
    last.free(&heap);
}
