// SPDX-License-Identifier: GPL-2.0

//! The division by the sectors of a page, by multiplication.

use super::{
    check,
    seed,
    share,
    Random, //
};
use crate::PageSize;
use proptest::prelude::*;
use std::num::NonZeroU32;

/// Sectors of the largest device, which has less than `1 << 63` bytes.
const SECTORS: u64 = 1 << 54;

/// Whether the division by `sectors` is exact for all sectors of a device.
///
/// The quotients do not decrease from a sector to the next one. So all are exact if those at both ends of a page are: the
/// first sector of a page if the multiplier is not too small, which shows at the second page, and the last one if it is
/// not too large, which shows at the last whole page.
fn is_exact(sectors: u32) -> bool {
    let page_size = PageSize::new(NonZeroU32::new(sectors).unwrap());
    let (sectors, pages) = (u64::from(sectors), SECTORS / u64::from(sectors));
    page_size.page_of(sectors) == 1
        && page_size.page_of(pages * sectors - 1) == pages - 1
        && page_size.page_of(SECTORS - 1) == (SECTORS - 1) / sectors
}

/// Of all page sizes, those that are small, those around the powers of two, and a slice that the seed chooses. Slices
/// that follow one another are those of seeds that do.
#[test]
fn every_page_size_divides_exactly() {
    const SLICES: u64 = 32;
    let slice = (1_u64 << 32) / SLICES;
    let start = seed() % SLICES * slice;
    let around_powers =
        (0..32).flat_map(|bits| (1_u64 << bits).saturating_sub(1000)..(1 << bits) + 1000);
    let all = (1..share(1 << 20))
        .chain(around_powers)
        .chain(start..start + share(slice))
        .chain((1 << 32) - 1000..1 << 32);
    for sectors in all.filter(|sectors| *sectors > 0) {
        assert!(is_exact(sectors as u32), "{sectors} sectors a page");
    }
}

/// Any page size and sector, and what else is asked about both.
#[test]
fn a_sector_is_in_its_page() {
    let sectors = prop_oneof![
        1..100_u32,
        1..=u32::MAX,
        (0..32_u32).prop_map(|bits| 1 << bits)
    ];
    // Pages, of which the chosen sector is near a border.
    let near = (0..SECTORS, -3..=3_i64, any::<bool>());
    let cases = (sectors, near, 0..5000_u32);
    check(2_000_000, cases, |(sectors, (at, off, is_near), len)| {
        let page_size = PageSize::new(NonZeroU32::new(sectors).unwrap());
        let size = u64::from(sectors);
        let offset = if is_near {
            (at / size * size)
                .saturating_add_signed(off)
                .min(SECTORS - 1)
        } else {
            at
        };
        let page = page_size.page_of(offset);
        prop_assert_eq!(page, offset / size);
        prop_assert_eq!(page_size.start_of(page), page * size);
        let end = u128::from(offset) + u128::from(len);
        let page_end = (u128::from(page) + 1) * u128::from(size);
        prop_assert_eq!(page_size.contains(page, offset, len), end <= page_end);
        let pages = PageSize::count_pages(NonZeroU32::new(sectors).unwrap(), offset);
        prop_assert_eq!(pages, offset.div_ceil(size));
        Ok(())
    });
}

/// The test above finds a multiplier that is too small or too large by 1, for some page size.
#[test]
fn any_sector_of_any_page_size() {
    let mut random = Random::new(seed());
    for _ in 0..share(3_000_000) {
        let sectors = (random.word() >> random.below(32)).max(1);
        let page_size = PageSize::new(NonZeroU32::new(sectors).unwrap());
        let offset = random.below(SECTORS) >> random.below(54);
        assert_eq!(page_size.page_of(offset), offset / u64::from(sectors));
    }
}
