//! The heap of a component: a small arena first, then a larger one, then the system's allocator.
//!
//! A fresh instance answers most calls, and most calls need a few kilobytes. The system's allocator begins by growing
//! the memory, which costs more than such a call; the first arena is part of the memory the instance starts with. A call
//! that needs more, such as a plan for a thousand daughters, makes thousands of small blocks, each of which would cost the
//! system's allocator several times what it costs here, so a second arena is taken of it whole. Arenas are stacks that
//! are emptied whenever nothing in them is alive, which is the case between the calls of a warm instance.
//!
//! ```text
//!  first   ├── handed out ──┤ the rest is left        at ┐
//!  second  ├── handed out ──┼────── free ──────┤         │      full, or too large: the system's allocator
//!                           └────────────────────────────┘
//! ```
//!
//! Invariant: memory handed out lies within an arena, ends at or before `at` if that is the arena in use, and is handed
//! out again only after it was given back.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ptr;
use std::alloc::System;

/// Of the first arena.
const SIZE: usize = 48 * 1024;
/// Of the second.
const MORE: usize = 512 * 1024;
/// Of both, and the largest alignment of a block in them.
const ALIGN: usize = 16;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; SIZE]>);

/// The allocator.
struct Heap {
    arena: Arena,
    /// The second arena; null until it is needed.
    more: Cell<*mut u8>,
    /// Where the arena in use begins and ends; null until the first block.
    start: Cell<*mut u8>,
    end: Cell<*mut u8>,
    /// What is handed out next. Between `start` and `end`.
    at: Cell<*mut u8>,
    /// Blocks of both arenas that are alive.
    alive: Cell<usize>,
}

// SAFETY: a component has one thread, and the component model enters an instance once at a time. Elsewhere it is not Sync.
#[cfg(target_family = "wasm")]
unsafe impl Sync for Heap {}

#[cfg(target_family = "wasm")]
#[global_allocator]
static HEAP: Heap = Heap::new();

impl Heap {
    const fn new() -> Self {
        Self {
            arena: Arena(UnsafeCell::new([0; SIZE])),
            more: Cell::new(ptr::null_mut()),
            start: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            at: Cell::new(ptr::null_mut()),
            alive: Cell::new(0),
        }
    }

    fn first(&self) -> *mut u8 {
        self.arena.0.get().cast()
    }

    /// Whether a block is of an arena.
    fn owns(&self, block: *mut u8) -> bool {
        let within = |arena: *mut u8, size| block.addr().wrapping_sub(arena.addr()) < size;
        within(self.first(), SIZE) || (!self.more.get().is_null() && within(self.more.get(), MORE))
    }

    /// Whether a block is the last of the arena in use.
    fn is_last(&self, block: *mut u8, size: usize) -> bool {
        block >= self.start.get() && block.wrapping_add(size) == self.at.get()
    }

    /// Hands out from this arena from now on.
    fn enter(&self, arena: *mut u8, size: usize) {
        self.start.set(arena);
        self.at.set(arena);
        self.end.set(arena.wrapping_add(size));
    }

    /// A block of the arena in use, if it has room.
    #[inline]
    fn bump(&self, layout: Layout) -> Option<*mut u8> {
        let at = self.at.get();
        // An alignment is a power of two. What is skipped is within the arena, whose end is aligned to ALIGN.
        let skipped = at.addr().wrapping_neg() & (layout.align().wrapping_sub(1));
        let block = at.wrapping_add(skipped);
        let room = self.end.get().addr().wrapping_sub(block.addr());
        if layout.align() > ALIGN || layout.size() > room {
            return None;
        }
        self.at.set(block.wrapping_add(layout.size()));
        self.alive.set(self.alive.get().wrapping_add(1));
        Some(block)
    }

    /// A block where the arena in use has no room: of the next, or the system's.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::alloc`].
    #[cold]
    unsafe fn spill(&self, layout: Layout) -> *mut u8 {
        if self.start.get().is_null() {
            self.enter(self.first(), SIZE);
        } else if self.start.get() == self.first()
            && layout.size() <= MORE
            && layout.align() <= ALIGN
        {
            if self.more.get().is_null() {
                // SAFETY: neither size nor alignment is 0, the alignment is a power of two and the size no larger than isize.
                let whole = unsafe { Layout::from_size_align_unchecked(MORE, ALIGN) };
                // SAFETY: the size is not 0.
                self.more.set(unsafe { System.alloc(whole) });
            }
            if !self.more.get().is_null() {
                self.enter(self.more.get(), MORE);
            }
        }
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        self.bump(layout)
            .unwrap_or_else(|| unsafe { System.alloc(layout) })
    }
}

// SAFETY: a block lies in an arena, aligned (`at` is skipped to the layout's alignment), and no two that are alive overlap:
// in the arena in use `at` only falls to the beginning of the last block, which is given back, or to the arena's when no
// block of either arena is alive; the other arena is entered only when it has no block that is alive.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.bump(layout) {
            Some(block) => block,
            // SAFETY: the caller's promises are those that are asked for.
            None => unsafe { self.spill(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !self.owns(block) {
            // SAFETY: the block is of no arena, so it came from there, with this layout.
            return unsafe { System.dealloc(block, layout) };
        }
        let alive = self.alive.get().wrapping_sub(1);
        self.alive.set(alive);
        if alive == 0 {
            self.enter(self.first(), SIZE);
        } else if self.is_last(block, layout.size()) {
            self.at.set(block);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.owns(block) {
            // SAFETY: the block is of no arena, so it came from there, with this layout; the size is the caller's.
            return unsafe { System.realloc(block, layout, size) };
        }
        let room = self.end.get().addr().wrapping_sub(block.addr());
        // The last block grows where it is.
        if self.is_last(block, layout.size()) && size <= room {
            self.at.set(block.wrapping_add(size));
            return block;
        }
        // SAFETY: the caller promises that the size is not 0 and, rounded up to the alignment, no larger than isize.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as for `alloc`.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            let kept = layout.size().min(size);
            // SAFETY: both blocks are alive, so they do not overlap, and have this many bytes.
            unsafe { ptr::copy_nonoverlapping(block, new, kept) };
            // SAFETY: the block is alive, with this layout, and is not used after this.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests;
