// SPDX-License-Identifier: GPL-2.0

//! Modules.
//!
//! C header: `include/linux/module.h`

use crate::{
    bindings,
    error::Error,
    init::PinInit, //
};

/// The module itself.
pub struct ThisModule(*mut bindings::module);

// SAFETY: The module may be used from any thread.
unsafe impl Sync for ThisModule {}

impl ThisModule {
    /// # Safety
    ///
    /// The pointer must be to the module that this code is in.
    #[doc(hidden)]
    pub const unsafe fn from_ptr(pointer: *mut bindings::module) -> Self {
        Self(pointer)
    }

    /// Returns the pointer that C takes.
    pub const fn as_ptr(&self) -> *mut bindings::module {
        self.0
    }
}

/// The value of a loaded module. It is initialized in place when the module is loaded, and dropped when the module is
/// removed.
pub trait InPlaceModule: Sync + Send {
    /// Returns the initializer, which is called when the module is loaded.
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error>
    where
        Self: Sized;
}

/// Returns the bytes of a text, for a section.
#[doc(hidden)]
pub const fn section_bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut index = 0;
    while index < N {
        bytes[index] = text.as_bytes()[index];
        index += 1;
    }
    bytes
}

/// Declares the crate's module: its type, which implements [`InPlaceModule`], and its `modinfo`.
#[macro_export]
macro_rules! module {
    (
        type: $type:ident,
        name: $name:literal,
        authors: [$($author:literal),+ $(,)?],
        description: $description:literal,
        license: $license:literal,
        alias: [$($alias:literal),+ $(,)?] $(,)?
    ) => {
        const __LOG_PREFIX: &str = concat!($name, ": ");

        $($crate::__module_info!("author", $author);)+
        $crate::__module_info!("description", $description);
        $crate::__module_info!("license", $license);
        $($crate::__module_info!("alias", $alias);)+

        const _: () = {
            use $crate::{bindings, ffi::c_int, init::PinInit, InPlaceModule, ThisModule};
            use ::core::mem::MaybeUninit;

            static MODULE: ThisModule = {
                extern "C" {
                    static mut __this_module: bindings::module;
                }
                // SAFETY: The kernel's build makes this for the module that is being built.
                unsafe { ThisModule::from_ptr(&raw mut __this_module) }
            };

            static mut VALUE: MaybeUninit<$type> = MaybeUninit::uninit();

            /// # Safety
            ///
            /// The kernel calls it once, when it loads the module.
            #[no_mangle]
            #[link_section = ".init.text"]
            unsafe extern "C" fn init_module() -> c_int {
                let init = <$type as InPlaceModule>::init(&MODULE);
                // SAFETY: The memory is valid for writes, and nothing moves the value.  Before this returns 0, others
                // use only fields that are initialized, through shared references.
                match unsafe { init.__pinned_init((&raw mut VALUE).cast()) } {
                    Ok(()) => 0,
                    Err(error) => error.to_errno(),
                }
            }

            // The address is referenced, so that objtool does not take the function for one that is never called
            // through a pointer, and seals it.
            #[used(compiler)]
            #[link_section = ".init.data"]
            static INIT: unsafe extern "C" fn() -> c_int = init_module;

            #[used(compiler)]
            #[link_section = ".exit.data"]
            static CLEANUP: unsafe extern "C" fn() = cleanup_module;

            /// # Safety
            ///
            /// The kernel calls it once, after `init_module` returned 0.
            #[no_mangle]
            #[link_section = ".exit.text"]
            unsafe extern "C" fn cleanup_module() {
                // SAFETY: `init_module` made the value, and nothing uses it any more.
                unsafe { (&raw mut VALUE).cast::<$type>().drop_in_place() };
            }
        };
    };
}

/// Adds a line to `modinfo`.
#[doc(hidden)]
#[macro_export]
macro_rules! __module_info {
    ($key:literal, $value:literal) => {
        const _: () = {
            const TEXT: &str = concat!($key, "=", $value, "\0");

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static INFO: [u8; TEXT.len()] = $crate::section_bytes(TEXT);
        };
    };
}
