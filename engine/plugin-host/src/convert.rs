//! Records of `brood-hooks` to those that wasmtime generates, and back.
//!
//! Invariant: field by field and case by case, without judgement: what is asked arrives as it was asked, and what is
//! answered is checked elsewhere.

mod admission;
mod billing;
mod mutation;
mod placement;
mod shared;

/// The same value on the other side.
pub(crate) trait Cross<T> {
    /// Carries it over.
    fn cross(self) -> T;
}

macro_rules! same {
    ($($kind:ty),*) => { $(
        impl Cross<$kind> for $kind {
            fn cross(self) -> $kind {
                self
            }
        }
    )* };
}
same!(u8, u16, u32, u64, i32, i64, String);

impl<A: Cross<B>, B> Cross<Vec<B>> for Vec<A> {
    fn cross(self) -> Vec<B> {
        self.into_iter().map(Cross::cross).collect()
    }
}

impl<A: Cross<B>, B> Cross<Option<B>> for Option<A> {
    fn cross(self) -> Option<B> {
        self.map(Cross::cross)
    }
}

impl<A: Cross<C>, B: Cross<D>, C, D> Cross<(C, D)> for (A, B) {
    fn cross(self) -> (C, D) {
        (self.0.cross(), self.1.cross())
    }
}

/// Both directions of a record whose fields have the same names.
macro_rules! record {
    ($ours:path, $theirs:path { $($field:ident),* $(,)? }) => {
        impl $crate::convert::Cross<$theirs> for $ours {
            fn cross(self) -> $theirs {
                $theirs { $($field: self.$field.cross()),* }
            }
        }
        impl $crate::convert::Cross<$ours> for $theirs {
            fn cross(self) -> $ours {
                $ours { $($field: self.$field.cross()),* }
            }
        }
    };
}

/// Both directions of a variant whose cases have the same names and at most one payload.
macro_rules! variant {
    ($ours:ident, $theirs:ident { $($case:ident $(($payload:ident))?),* $(,)? }) => {
        impl $crate::convert::Cross<$theirs> for $ours {
            fn cross(self) -> $theirs {
                match self { $($ours::$case $(($payload))? => $theirs::$case $(($payload.cross()))?),* }
            }
        }
        impl $crate::convert::Cross<$ours> for $theirs {
            fn cross(self) -> $ours {
                match self { $($theirs::$case $(($payload))? => $ours::$case $(($payload.cross()))?),* }
            }
        }
    };
}

use {record, variant};
