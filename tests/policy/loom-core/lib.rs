// SPDX-License-Identifier: GPL-2.0-only

//! The crate `core`, whose atomics are loom's: those that `dm-switch.rs` uses, and their functions.

pub use core::*;

pub mod sync {
    pub use core::sync::*;

    pub mod atomic {
        pub use core::sync::atomic::Ordering;
        use loom::sync::atomic;

        /// Makes loom try both orders of two accesses to an atomic.
        ///
        /// By itself, loom looks for another order only with the last access before this one. So it misses that of a
        /// reader's load and a writer's store, if the writer has loaded the same atomic between them. To a number that
        /// each access changes, each is the last one. It orders no other memory.
        struct Accesses(atomic::AtomicUsize);

        impl Accesses {
            fn new() -> Self {
                Self(atomic::AtomicUsize::new(0))
            }

            fn add(&self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        macro_rules! declare {
            ($name:ident $(<$parameter:ident>)?, $type:ty) => {
                pub struct $name $(<$parameter>)? {
                    value: atomic::$name $(<$parameter>)?,
                    accesses: Accesses,
                }

                impl $(<$parameter>)? $name $(<$parameter>)? {
                    #[track_caller]
                    pub fn new(value: $type) -> Self {
                        Self {
                            value: atomic::$name::new(value),
                            accesses: Accesses::new(),
                        }
                    }

                    #[track_caller]
                    pub fn load(&self, order: Ordering) -> $type {
                        self.accesses.add();
                        self.value.load(order)
                    }

                    #[track_caller]
                    pub fn store(&self, value: $type, order: Ordering) {
                        self.accesses.add();
                        self.value.store(value, order);
                    }

                    #[track_caller]
                    pub fn swap(&self, value: $type, order: Ordering) -> $type {
                        self.accesses.add();
                        self.value.swap(value, order)
                    }
                }
            };
        }

        declare!(AtomicU32, u32);
        declare!(AtomicPtr<T>, *mut T);
    }
}
