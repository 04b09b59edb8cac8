//! Every function of the C ABI as one entry of a table, with its arguments drawn from a seed: what the tests
//! that walk over all of them share.
#![allow(dead_code)] // each test binary uses its own part

mod answers;
pub mod arguments;
mod caches;
mod files;
mod layers;
mod objects;
#[path = "../pages.rs"]
mod pages;
mod products;
mod rows;
mod states;
mod weights;
pub mod world;

use arguments::Arguments;
use kvern::capi::status::kvern_status;
use world::World;

/// One call; a function without a status gives 0.
pub type Call = unsafe fn(&mut World, &mut Arguments) -> kvern_status;

/// Every exported function, by name.
pub fn calls() -> Vec<(&'static str, Call)> {
    [
        objects::CALLS,
        products::CALLS,
        weights::CALLS,
        files::CALLS,
        layers::CALLS,
        rows::CALLS,
        caches::CALLS,
        states::CALLS,
    ]
    .concat()
}

/// An entry of the table: a function and how it is called.
macro_rules! call {
    ($name:ident, |$w:ident, $g:ident| $body:expr) => {{
        #[allow(unused_unsafe, reason = "some functions are safe")]
        unsafe fn call($w: &mut World, $g: &mut Arguments) -> kvern_status {
            let _ = &$w; // not every call uses an object
            // SAFETY: pointers are NULL, misaligned, or live, and have the stated shapes where those fit a
            // buffer.
            unsafe { $body }
        }
        let _ = $name; // the name is that of a function
        (stringify!($name), call as Call)
    }};
}

/// Calls a function that makes an object: it is kept where the call succeeds, and NULL where it is refused.
macro_rules! made {
    ($w:ident.$list:ident, $g:ident, |$out:ident| $call:expr) => {{
        let $out = $g.value();
        let status = $call;
        let good = !$out.is_null() && $out.is_aligned();
        if status == 0 {
            assert!(!(*$out).is_null(), "no object");
            $w.$list.keep($g, *$out);
        } else if good {
            assert!((*$out).is_null(), "an object of a call that was refused");
            $out.cast::<u8>().write_bytes($crate::functions::arguments::SENTINEL, size_of::<usize>());
        }
        status
    }};
}

/// The call itself, once its arguments are there: [`arguments::is_inside`] holds from here to its return.
macro_rules! lib {
    ($function:ident($($argument:expr),* $(,)?)) => { lib!(@ $function [] $($argument),*) };
    (@ $function:ident []) => { $crate::functions::arguments::leave($function()) };
    (@ $function:ident [$($done:expr),*] $last:expr) => {
        $crate::functions::arguments::leave($function($($done,)* $crate::functions::arguments::enter($last)))
    };
    (@ $function:ident [$($done:expr),*] $next:expr, $($rest:expr),+) => {
        lib!(@ $function [$($done,)* $next] $($rest),+)
    };
}

use {call, lib, made};
