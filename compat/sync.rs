// SPDX-License-Identifier: GPL-2.0

//! Sharing between threads.

mod arc;
pub mod lock;

pub use arc::Arc;
pub use lock::{
    LockClassKey,
    Mutex,
    MutexGuard, //
};
