// SPDX-License-Identifier: GPL-2.0

//! The crate that the compiler links with every other one. Its functions, for what machines do not do themselves, are
//! not needed: a kernel has those that it allows, and where the module calls another one modpost says which.

#![allow(internal_features)]
#![feature(compiler_builtins)]
#![compiler_builtins]
#![no_builtins]
#![no_std]
