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
        heap.offset(self.start).is_some()
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
    for step in 0..20_000 {
        match next(4) {
            0 | 1 if blocks.len() < 60 => {
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
    assert_eq!((heap.used.get(), heap.alive.get()), (0, 0));
}

#[test]
fn arena_is_empty_again_when_nothing_is_alive_and_full_one_is_left_alone() {
    let heap = Box::new(Heap::new());
    let whole = Block::new(&heap, SIZE, 16, 1);
    let more = Block::new(&heap, 1, 1, 2);
    assert!(whole.is_in(&heap) && !more.is_in(&heap));
    whole.free(&heap);
    let again = Block::new(&heap, SIZE, 16, 3);
    assert!(again.is_in(&heap));
    again.free(&heap);
    more.free(&heap);
}

#[test]
fn last_block_grows_and_shrinks_where_it_is() {
    let heap = Box::new(Heap::new());
    let first = Block::new(&heap, 100, 8, 1);
    let mut last = Block::new(&heap, 100, 8, 2);
    let start = last.start;
    last.grow(&heap, SIZE - 104);
    assert_eq!(last.start, start);
    last.grow(&heap, 10);
    assert_eq!((last.start, heap.used.get()), (start, 114));
    last.grow(&heap, SIZE);
    assert!(!last.is_in(&heap), "it does not fit any more");
    assert_eq!(heap.used.get(), 104, "its place is free");
    first.free(&heap);
    last.free(&heap);
}
