//! Instruction sets: listed, named, and refused with the reason where the machine lacks them.

use crate::capi::*;
use kvern::Isa;
use kvern::capi::context::*;
use kvern::capi::isa::*;
use kvern::capi::status::*;
use std::ffi::CString;
use std::ptr::null_mut;

#[test]
fn tiers_are_listed_named_and_refused_by_name() {
    let listed: Vec<i32> = (0..kvern_isa_count()).map(|i| kvern_isa_at(i)).collect();
    assert_eq!(listed, Isa::KNOWN.map(|isa| isa as i32));
    for tier in Isa::KNOWN {
        let (name, mut number, mut ctx) = (CString::new(tier.name()).unwrap(), 0, null_mut());
        // SAFETY: every pointer is live.
        unsafe { ok(kvern_isa_from_name(name.as_ptr(), &mut number)) };
        assert_eq!((number, text(kvern_isa_name(number))), (tier as i32, tier.name().to_owned()));
        assert_eq!(text(kvern_isa_status(number)), tier.status().to_string());
        let options = kvern_context_options { isa_cap: number, ..context_options() };
        // SAFETY: every pointer is live.
        let status = unsafe { kvern_context_create(&options, &mut ctx) };
        if tier.is_available() {
            ok(status);
        } else {
            let why = format!("isa = {tier} is not available: {}", tier.status());
            refused(status, KVERN_STATUS_UNSUPPORTED, &why);
        }
        // SAFETY: a context, or NULL.
        unsafe { kvern_context_destroy(ctx) };
    }
    let mut number = 7;
    // SAFETY: every pointer is live.
    let status = unsafe { kvern_isa_from_name(c"sse9".as_ptr(), &mut number) };
    let names = Isa::KNOWN.map(Isa::name).join(", ");
    refused(status, KVERN_STATUS_OPTION, &format!("name = sse9 must be one of {names}"));
    assert_eq!(number, 7);
}
