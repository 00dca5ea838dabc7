// SPDX-License-Identifier: GPL-2.0

//! Tests of the stand-in, which run on the host: `make check TEST=compat`.

use crate::{
    alloc::AllocError,
    bindings::{
        allocations,
        allow_allocations,
        take_log, //
    },
    container_of,
    error::{
        code::EIO,
        from_result,
        to_result, //
    },
    fmt,
    new_mutex,
    prelude::*,
    print,
    str::Formatter,
    sync::{
        Arc,
        Mutex, //
    },
    transmute::{
        AsBytes,
        FromBytes, //
    },
    types::Opaque, //
};
use core::{
    cell::RefCell,
    fmt::Write,
    mem::zeroed, //
};
use std::rc::Rc;

pub(crate) const __LOG_PREFIX: &str = "test: ";

/// The names of the values that were dropped, in that order.
type Dropped = Rc<RefCell<Vec<&'static str>>>;

/// A value that says when it is dropped.
#[derive(Clone)]
struct Named(&'static str, Dropped);

impl Drop for Named {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

/// Runs `f`, and expects that all memory is freed then.
fn without_leak(f: impl FnOnce(&Dropped)) {
    f(&Dropped::default());
    allow_allocations(usize::MAX);
    assert_eq!(allocations(), 0);
}

/// Calls `f` with no memory, then with memory for one allocation, and so on, until it succeeds. Returns how often it
/// failed.
fn failures<T>(mut f: impl FnMut() -> Result<T>) -> usize {
    for count in 0.. {
        let before = allocations();
        allow_allocations(count);
        let outcome = f();
        allow_allocations(usize::MAX);
        match outcome {
            Ok(_) => return count,
            Err(error) => assert_eq!((error, allocations()), (ENOMEM, before)),
        }
    }
    unreachable!()
}

#[test]
fn a_box_drops_its_value_once() {
    without_leak(|dropped| {
        let boxed = KBox::new(Named("value", dropped.clone()), GFP_KERNEL).unwrap();
        let raw = KBox::into_raw(boxed);
        assert!(dropped.borrow().is_empty());
        // SAFETY: It came from a box.
        drop(unsafe { KBox::from_raw(raw) });
        assert_eq!(*dropped.borrow(), ["value"]);
    });
}

#[test]
fn a_box_without_memory_drops_its_value() {
    without_leak(|dropped| {
        allow_allocations(0);
        assert!(KBox::new(Named("value", dropped.clone()), GFP_KERNEL).is_err());
        assert_eq!(*dropped.borrow(), ["value"]);
    });
}

#[test]
fn a_vector_keeps_its_values_when_it_grows() {
    without_leak(|_| {
        let mut vector = KVVec::new();
        for value in 0..1000_u64 {
            vector.reserve(1, GFP_KERNEL).unwrap();
            vector.push_within_capacity(value).unwrap();
            assert_eq!(vector.len(), value as usize + 1);
        }
        assert!(vector.iter().copied().eq(0..1000));
        assert_eq!(allocations(), 1);
        vector[7] = 0;
        assert_eq!(vector[6..9], [6, 0, 8]);
    });
}

#[test]
fn a_vector_without_values_takes_no_memory() {
    without_leak(|_| {
        let mut vector = KVVec::<u32>::new();
        vector.reserve(0, GFP_KERNEL).unwrap();
        vector.extend_from_slice(&[], GFP_KERNEL).unwrap();
        assert_eq!((vector.len(), vector.last(), allocations()), (0, None, 0));
        assert_eq!(vector.push_within_capacity(1), Err(1));
    });
}

#[test]
fn a_vector_without_memory_stays_as_it_was() {
    without_leak(|dropped| {
        let mut vector = KVVec::with_capacity(1, GFP_KERNEL).unwrap();
        let mut is_pushed = |name| {
            let value = Named(name, dropped.clone());
            vector.push_within_capacity(value).is_ok()
        };
        assert!(is_pushed("first"));
        assert!(!is_pushed("second"));
        allow_allocations(0);
        assert_eq!(vector.reserve(1, GFP_KERNEL), Err(AllocError));
        assert_eq!(*dropped.borrow(), ["second"]);
        assert_eq!(vector.reserve(usize::MAX, GFP_KERNEL), Err(AllocError));
        allow_allocations(usize::MAX);
        assert_eq!(vector.reserve(usize::MAX / 8, GFP_KERNEL), Err(AllocError));
        assert_eq!((vector.len(), vector[0].0), (1, "first"));
        drop(vector);
        assert_eq!(*dropped.borrow(), ["second", "first"]);
    });
}

#[test]
fn a_vector_of_equal_values_has_as_many() {
    without_leak(|dropped| {
        let value = Named("value", dropped.clone());
        let mut vector = KVVec::from_elem(value, 3, GFP_KERNEL).unwrap();
        assert_eq!((vector.len(), dropped.borrow().len()), (3, 0));
        let copy = vector.iter().cloned().collect::<Vec<_>>();
        vector.extend_from_slice(&copy, GFP_KERNEL).unwrap();
        assert_eq!(vector.len(), 6);
        drop(vector);
        assert_eq!(dropped.borrow().len(), 6);
        assert!(KVVec::from_elem(0_u32, 0, GFP_KERNEL).unwrap().is_empty());
    });
}

#[test]
fn the_last_reference_drops_the_value() {
    without_leak(|dropped| {
        let first = Arc::new(Named("value", dropped.clone()), GFP_KERNEL).unwrap();
        let second = first.clone();
        drop(first);
        assert!(dropped.borrow().is_empty());
        assert_eq!(second.0, "value");
        drop(second);
        assert_eq!(*dropped.borrow(), ["value"]);
    });
}

#[pin_data(PinnedDrop)]
struct Pair {
    dropped: Dropped,
    #[pin]
    first: Named2,
    len: usize,
    #[pin]
    second: Named2,
}

#[pinned_drop]
impl PinnedDrop for Pair {
    fn drop(self: Pin<&mut Self>) {
        self.dropped.borrow_mut().push("pair");
    }
}

/// A value that is made where it stays.
#[pin_data]
struct Named2 {
    name: Named,
    #[pin]
    lock: Mutex<u32>,
}

impl Named2 {
    fn new(
        name: &'static str,
        dropped: &Dropped,
        fails: Option<Error>,
    ) -> impl PinInit<Self, Error> {
        let name = Named(name, dropped.clone());
        try_pin_init!(Self {
            lock <- new_mutex!(7),
            name: match fails {
                Some(error) => return Err(error),
                None => name,
            },
        })
    }
}

impl Pair {
    fn new(dropped: &Dropped, fails: [Option<Error>; 2]) -> impl PinInit<Self, Error> + use<'_> {
        try_pin_init!(Self {
            dropped: dropped.clone(),
            first <- Named2::new("first", dropped, fails[0]),
            // A field that is made is there for those after it.
            len: first.name.0.len() + *first.lock.lock() as usize,
            second <- Named2::new("second", dropped, fails[1]),
        })
    }
}

#[test]
fn a_struct_is_made_field_by_field() {
    without_leak(|dropped| {
        let pair = Arc::pin_init(Pair::new(dropped, [None, None]), GFP_KERNEL).unwrap();
        assert_eq!(pair.len, 5 + 7);
        *pair.second.lock.lock() += 1;
        assert_eq!([*pair.first.lock.lock(), *pair.second.lock.lock()], [7, 8]);
        drop(pair);
        assert_eq!(*dropped.borrow(), ["pair", "first", "second"]);
    });
}

#[test]
fn a_field_that_fails_drops_those_before_it() {
    for (fails, expected) in [
        ([Some(EIO), None], vec!["first"]),
        ([None, Some(EINVAL)], vec!["second", "first"]),
    ] {
        without_leak(|dropped| {
            let error = Arc::pin_init(Pair::new(dropped, fails), GFP_KERNEL).err();
            assert_eq!(error, fails[0].or(fails[1]));
            assert_eq!(*dropped.borrow(), expected);
        });
    }
}

#[test]
fn what_is_made_without_memory_is_not_made() {
    without_leak(|dropped| {
        let failed = failures(|| Arc::pin_init(Pair::new(dropped, [None, None]), GFP_KERNEL));
        assert_eq!(failed, 1);
        let failed = failures(|| {
            let mut vector = KVVec::with_capacity(1, GFP_KERNEL)?;
            let _ = vector.push_within_capacity(KBox::new(1_u32, GFP_KERNEL)?);
            Ok(Arc::new(vector, GFP_KERNEL)?)
        });
        assert_eq!(failed, 3);
    });
}

#[test]
fn a_mutex_lets_one_thread_in_at_a_time() {
    let count = Arc::pin_init(new_mutex!(0_u32), GFP_KERNEL).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let mut count = count.lock();
                    let before = *count;
                    std::hint::black_box(());
                    *count = before + 1;
                }
            });
        }
    });
    assert_eq!(*count.lock(), 4000);
}

#[test]
fn errors_are_the_numbers_of_the_kernel() {
    assert_eq!(to_result(0), Ok(()));
    assert_eq!(to_result(3), Ok(()));
    assert_eq!(to_result(-12), Err(ENOMEM));
    assert_eq!([0, 1, -4096, i32::MIN].map(Error::from_errno), [EINVAL; 4]);
    assert_eq!(Error::from_errno(-4095).to_errno(), -4095);
    assert_eq!(from_result(|| Ok(7)), 7);
    assert_eq!(from_result::<i32>(|| Err(EBUSY)), -16);
    assert_eq!(
        [Error::from(AllocError), core::fmt::Error.into()],
        [ENOMEM, EINVAL]
    );
}

#[test]
fn a_formatter_writes_what_fits() {
    let mut buffer = [b'.'; 8];
    let mut text = Formatter::new(&mut buffer);
    assert!(write!(text, "{}-", 12).is_ok());
    assert!(write!(text, "{}", 1234567).is_err());
    assert_eq!(text.written(), b"12-12345");
    assert!(text.write_str("").is_ok());
    assert_eq!(
        Formatter::new(&mut []).write_str("x"),
        Err(core::fmt::Error)
    );
}

#[test]
fn a_line_of_the_log_has_level_and_prefix() {
    pr_warn!("{} of {number}\n", 1, number = 2);
    pr_err!("none\n");
    print::print(4, "", fmt!("{:2000}", "long"));
    let log = take_log();
    assert_eq!(
        log[..2],
        [(4, "test: 1 of 2\n".into()), (3, "test: none\n".into())]
    );
    assert!(log[2].1.starts_with("long   ") && log[2].1.len() < 2000);
}

#[test]
fn a_field_leads_to_its_struct() {
    struct Outer {
        _before: u16,
        field: Opaque<u32>,
    }
    let outer = Outer {
        _before: 1,
        field: Opaque::uninit(),
    };
    let value: *mut u32 = outer.field.get();
    let field = Opaque::cast_from(value).cast_mut();
    // SAFETY: It is the field of such a struct.
    let found = unsafe { container_of!(field, Outer, field) };
    assert!(core::ptr::eq(found, &outer));
}

#[test]
fn a_value_is_its_bytes() {
    #[repr(C)]
    struct Header {
        number: u32,
        flags: [u8; 4],
    }
    // SAFETY: Integers without padding.
    unsafe impl AsBytes for Header {}
    // SAFETY: Integers.
    unsafe impl FromBytes for Header {}
    // SAFETY: Integers.
    let mut header: Header = unsafe { zeroed() };
    header.as_bytes_mut()[3..6].fill(0xff);
    assert_eq!(header.number.to_ne_bytes(), [0, 0, 0, 0xff]);
    assert_eq!(header.flags, [0xff, 0xff, 0, 0]);
}

#[test]
fn strings_go_to_c() {
    let text = c"text";
    let pointer: *const crate::ffi::c_char = text.as_char_ptr();
    assert_eq!(pointer.cast(), text.to_bytes().as_ptr());
    assert_eq!(crate::section_bytes::<5>("name\0"), *b"name\0");
}

static_assert!(!core::mem::needs_drop::<Opaque<Named>>());
