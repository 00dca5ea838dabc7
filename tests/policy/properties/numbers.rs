// SPDX-License-Identifier: GPL-2.0

//! Numbers in table lines and messages.

use super::check;
use crate::{
    decimal,
    leading_decimal,
    split_once, //
};
use proptest::prelude::*;

#[test]
fn decimal_numbers_are_those_of_rust() {
    let texts = prop_oneof!["[+]{0,2}[0-9]{0,21}", "[-+x0-9/: ]{0,8}", "[0-9]{1,3}x?"];
    check(100_000, texts, |text: String| {
        let bytes = text.as_bytes();
        prop_assert_eq!(decimal::<u32>(bytes), text.parse().ok());
        prop_assert_eq!(decimal::<u64>(bytes), text.parse().ok());
        let end = text.find(|other: char| !other.is_ascii_digit());
        let digits = &text[..end.unwrap_or(text.len())];
        prop_assert_eq!(leading_decimal(bytes), digits.parse().ok());
        let parts = text.split_once(':');
        let parts = parts.map(|(before, after)| (before.as_bytes(), after.as_bytes()));
        prop_assert_eq!(split_once(bytes, |byte| *byte == b':'), parts);
        Ok(())
    });
}
