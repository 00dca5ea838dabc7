// SPDX-License-Identifier: GPL-2.0

//! What core itself uses of its module of the machines' own instructions (see core.sh).

/// The machines.
#[stable(feature = "simd_arch", since = "1.27.0")]
pub mod arch {
    /// Instructions of x86.
    #[cfg(target_arch = "x86_64")]
    #[stable(feature = "simd_x86", since = "1.27.0")]
    pub mod x86_64 {
        /// Tells the processor that this is a loop that waits.
        #[inline]
        #[stable(feature = "simd_x86", since = "1.27.0")]
        pub fn _mm_pause() {
            // SAFETY: The instruction changes neither registers nor memory.
            unsafe { crate::arch::asm!("pause", options(nomem, nostack, preserves_flags)) }
        }
    }

    /// Instructions of arm64.
    #[cfg(target_arch = "aarch64")]
    #[stable(feature = "neon_intrinsics", since = "1.59.0")]
    pub mod aarch64 {
        /// Of the whole system, which is what a barrier is for.
        #[stable(feature = "neon_intrinsics", since = "1.59.0")]
        pub struct SY;

        /// An instruction barrier, for a loop that waits.
        #[inline]
        #[stable(feature = "neon_intrinsics", since = "1.59.0")]
        pub fn __isb(_: SY) {
            // SAFETY: The instruction changes neither registers nor memory.
            unsafe { crate::arch::asm!("isb sy", options(nostack, preserves_flags)) }
        }
    }
}
