// SPDX-License-Identifier: GPL-2.0

//! Assertions that the compiler checks.

/// Stops the compilation unless the condition, a constant, is true.
#[macro_export]
macro_rules! static_assert {
    ($condition:expr $(,)?) => {
        const _: () = ::core::assert!($condition);
    };
}
