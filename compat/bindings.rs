// SPDX-License-Identifier: GPL-2.0

//! The kernel's types, constants and functions that the module needs, and the functions of `helpers.c`: generated
//! from it and from the headers that it includes.

#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unknown_lints,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

#[cfg(not(host))]
use crate::ffi;

/// Declares structs of C's that nothing here looks into.
macro_rules! opaque {
    ($($name:ident),* $(,)?) => {
        $(
            #[repr(C)]
            pub struct $name {
                _opaque: [u8; 0],
            }
        )*
    };
}

opaque! {
    bio_crypt_ctx,
    bio_integrity_payload,
    bio_set,
    blkcg_gq,
    block_device,
    file,
    module,
    net,
    netlink_callback,
    netlink_ext_ack,
    page,
    queue_limits,
    request,
    sk_buff,
    xarray,
}

#[cfg(not(host))]
include!("generated.rs");

#[cfg(host)]
include!("host.rs");
