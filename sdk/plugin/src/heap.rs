//! The heap of a component: a small arena first, then the system's allocator.
//!
//! A fresh instance answers most calls, and most calls need a few kilobytes. The system's allocator begins by growing
//! the memory, which costs more than such a call; the arena is part of the memory the instance starts with. It is a
//! stack that is emptied whenever nothing in it is alive, which is the case between the calls of a warm instance.
//!
//! ```text
//!  ARENA  ├── handed out ──┼────── free ──────┤      full, or too large: the system's allocator
//!                          └ used
//! ```
//!
//! Invariant: memory handed out lies within the arena, ends at or before `used`, and is handed out again only after it
//! was given back.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use std::alloc::System;

const SIZE: usize = 48 * 1024;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; SIZE]>);

/// The allocator.
struct Heap {
    arena: Arena,
    /// Bytes from the beginning that are handed out, with holes.
    used: Cell<usize>,
    /// Blocks of the arena that are alive.
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
            used: Cell::new(0),
            alive: Cell::new(0),
        }
    }

    fn base(&self) -> *mut u8 {
        self.arena.0.get().cast()
    }

    /// Where a block lies in the arena; none if it is not of it.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().checked_sub(self.base().addr())?;
        (offset < SIZE).then_some(offset)
    }
}

// SAFETY: a block is SIZE bytes of the arena at most, aligned (the base is to 16, the offset to the layout's), and no two
// that are alive overlap, because `used` only falls to the end of blocks that are alive, or to 0 when none is.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.used.get().next_multiple_of(layout.align());
        if layout.align() <= 16 && layout.size() <= SIZE.saturating_sub(start) {
            self.used.set(start + layout.size());
            self.alive.set(self.alive.get() + 1);
            // SAFETY: start + size is at most SIZE, so this is in the arena or one past its end.
            return unsafe { self.base().add(start) };
        }
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(offset) = self.offset(block) else {
            // SAFETY: the block is not of the arena, so it came from there, with this layout.
            return unsafe { System.dealloc(block, layout) };
        };
        let alive = self.alive.get() - 1;
        self.alive.set(alive);
        if alive == 0 {
            self.used.set(0);
        } else if offset + layout.size() == self.used.get() {
            self.used.set(offset);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match self.offset(block) {
            // The last block grows where it is.
            Some(offset) if offset + layout.size() == self.used.get() && size <= SIZE - offset => {
                self.used.set(offset + size);
                block
            }
            // SAFETY: the block is not of the arena, so it came from there, with this layout; the size is the caller's.
            None => unsafe { System.realloc(block, layout, size) },
            Some(_) => {
                // SAFETY: the caller promises that the size is not 0 and, rounded up to the alignment, no larger than isize.
                let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
                // SAFETY: as for `alloc`.
                let new = unsafe { self.alloc(wanted) };
                if !new.is_null() {
                    let kept = layout.size().min(size);
                    // SAFETY: both blocks are alive, so they do not overlap, and have this many bytes.
                    unsafe { core::ptr::copy_nonoverlapping(block, new, kept) };
                    // SAFETY: the block is alive, with this layout, and is not used after this.
                    unsafe { self.dealloc(block, layout) };
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests;
