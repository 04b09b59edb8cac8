//! Runs machine code with the VEX form of `vpdpbusd` on CPUs that lack it, and counts instructions: Linux.
//!
//! Where the instruction is unknown, the CPU raises SIGILL; the handler decodes the one at fault, computes
//! it, and goes on behind it. So the very functions that the library ships run, no copy of another encoding.
//! With the trap flag set, the CPU raises SIGTRAP behind each instruction; the handler counts.
//!
//! The handlers serve the whole process, but no other test runs into them; an instruction that is none of
//! these ends the process as ever.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::Once;

/// The instruction for one register: `acc[l] + w[4l..4l+4] . a[4l..4l+4]`, wrapping.
pub fn dot(acc: [i32; 8], w: [u8; 32], a: [i8; 32]) -> [i32; 8] {
    std::array::from_fn(|l| {
        let products = (4 * l..4 * l + 4).map(|i| i32::from(w[i]) * i32::from(a[i]));
        products.fold(acc[l], i32::wrapping_add)
    })
}

/// General registers by their number in an instruction.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Where an operand is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Ymm(usize),
    Memory(u64),
}

/// `{vex} vpdpbusd ymm(acc), ymm(w), a`, and its length.
#[derive(Debug, PartialEq)]
struct Instruction {
    acc: usize,
    w: usize,
    a: Place,
    len: usize,
}

/// Decodes `VEX.256.66.0F38.W0 50 /r` at `at`; `None` for all else.
fn decode(code: &[u8], at: u64, register: impl Fn(usize) -> u64) -> Option<Instruction> {
    let &[0xC4, first, second, 0x50, modrm, ..] = code else { return None };
    if first & 0x1F != 2 || second & 0x87 != 0x05 {
        return None;
    }
    let extended = |bit: u8, number: u8| usize::from(number & 7) + if first & bit == 0 { 8 } else { 0 };
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let (mut len, a);
    let word = |at: usize| Some(i32::from_le_bytes(code.get(at..at + 4)?.try_into().ok()?) as i64 as u64);
    if mode == 3 {
        (len, a) = (5, Place::Ymm(extended(0x20, modrm)));
    } else {
        let (mut address, base);
        if rm == 4 {
            let sib = *code.get(5)?;
            let index = extended(0x40, sib >> 3);
            address = if index == 4 { 0 } else { register(index) << (sib >> 6) };
            (len, base) = (6, extended(0x20, sib));
        } else {
            (len, address, base) = (5, 0, extended(0x20, rm));
        }
        match (mode, base & 7) {
            // Relative to the next instruction.
            (0, 5) if rm == 5 => address = word(len)?.wrapping_add(at + len as u64 + 4),
            (0, 5) => address = address.wrapping_add(word(len)?),
            _ => address = address.wrapping_add(register(base)),
        }
        match mode {
            1 => address = address.wrapping_add(*code.get(len)? as i8 as i64 as u64),
            2 => address = address.wrapping_add(word(len)?),
            _ => {}
        }
        len += match (mode, base & 7) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
        a = Place::Memory(address);
    }
    Some(Instruction { acc: extended(0x80, modrm >> 3), w: usize::from(!(second >> 3) & 15), a, len })
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static DOTS: Cell<u64> = const { Cell::new(0) };
}

/// The ymm registers as the kernel saved them for a handler.
struct Saved(*mut u8);

impl Saved {
    /// The halves of a register: in the area of `fxsave`, and in that of AVX.
    fn halves(&self, register: usize) -> [*mut [u8; 16]; 2] {
        [160, 576].map(|start| self.0.wrapping_add(start + 16 * register).cast())
    }

    /// # Safety
    /// - the pointer is that of a signal's context whose AVX state was saved.
    unsafe fn get(&self, register: usize) -> [u8; 32] {
        // SAFETY: both halves lie in the saved state.
        let [low, high] = self.halves(register).map(|half| unsafe { half.read_unaligned() });
        std::array::from_fn(|i| if i < 16 { low[i] } else { high[i - 16] })
    }

    /// # Safety
    /// - as [`Saved::get`].
    unsafe fn set(&self, register: usize, value: [u8; 32]) {
        for (half, bytes) in self.halves(register).into_iter().zip(value.chunks(16)) {
            // SAFETY: both halves lie in the saved state.
            unsafe { half.write_unaligned(bytes.try_into().expect("16 bytes")) };
        }
    }
}

/// SIGILL: computes the dot product at fault, or gives up.
unsafe extern "C" fn compute(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a context over; the code at fault is readable, 15 bytes of it at most are one
    // instruction, and what follows it in the text of this program is readable too.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let at = machine.gregs[libc::REG_RIP as usize] as u64;
        let code = std::slice::from_raw_parts(at as *const u8, 15);
        let register = |number: usize| machine.gregs[REGISTERS[number] as usize] as u64;
        let Some(i) = decode(code, at, register) else {
            libc::signal(libc::SIGILL, libc::SIG_DFL); // and the instruction once more
            return;
        };
        let saved = Saved(machine.fpregs.cast());
        let a = match i.a {
            Place::Ymm(number) => saved.get(number),
            Place::Memory(address) => (address as *const [u8; 32]).read_unaligned(),
        };
        let acc = saved.get(i.acc);
        let acc = std::array::from_fn(|l| i32::from_le_bytes(std::array::from_fn(|b| acc[4 * l + b])));
        let sums = dot(acc, saved.get(i.w), a.map(|byte| byte as i8));
        saved.set(i.acc, std::array::from_fn(|b| sums[b / 4].to_le_bytes()[b % 4]));
        machine.gregs[libc::REG_RIP as usize] += i.len as i64;
    }
    DOTS.set(DOTS.get() + 1);
    STEPS.set(STEPS.get() + 1); // no SIGTRAP follows what the CPU did not run
}

/// SIGTRAP: one instruction more.
unsafe extern "C" fn step(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    STEPS.set(STEPS.get() + 1);
}

/// Installs the handlers, once.
pub fn install() {
    static ONCE: Once = Once::new();
    type Handler = unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
    ONCE.call_once(|| {
        for (signal, handler) in [(libc::SIGILL, compute as Handler), (libc::SIGTRAP, step as Handler)] {
            // SAFETY: zeros are a valid action, whose handler and flags are set.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
            }
        }
    });
}

/// Instructions of `call` on this thread.
///
/// Dot products that the CPU lacks count as one each.
pub fn instructions(call: impl FnOnce()) -> u64 {
    let run = |call: &mut dyn FnMut()| {
        STEPS.set(0);
        // SAFETY: the flag raises SIGTRAP, which is handled.
        unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        call();
        // SAFETY: the flag as it was.
        unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        STEPS.get()
    };
    let mut call = Some(call);
    let own = run(&mut || {});
    run(&mut || (call.take().expect("one call"))()) - own
}

/// Dot products that were computed for this thread.
pub fn computed() -> u64 {
    DOTS.get()
}

#[test]
fn every_form_of_an_operand_is_decoded() {
    let register = |number: usize| 0x1000 * number as u64;
    let check = |code: &[u8], acc, w, a| {
        let padded = [code, &[0x90; 15]].concat();
        let expected = Instruction { acc, w, a, len: code.len() };
        assert_eq!(decode(&padded, 0x400, register), Some(expected), "{code:02x?}");
    };
    // As GNU as encodes `{vex} vpdpbusd a, w, acc`.
    check(&[0xC4, 0xE2, 0x75, 0x50, 0xD0], 2, 1, Place::Ymm(0));
    check(&[0xC4, 0x42, 0x05, 0x50, 0xD6], 10, 15, Place::Ymm(14));
    check(&[0xC4, 0xE2, 0x75, 0x50, 0x01], 0, 1, Place::Memory(0x1000)); // (%rcx)
    check(&[0xC4, 0xC2, 0x75, 0x50, 0x49, 0xE0], 1, 1, Place::Memory(0x8FE0)); // -0x20(%r9)
    check(&[0xC4, 0xE2, 0x75, 0x50, 0x85, 0, 1, 0, 0], 0, 1, Place::Memory(0x5100)); // 0x100(%rbp)
    check(&[0xC4, 0xE2, 0x75, 0x50, 0x44, 0x24, 0x20], 0, 1, Place::Memory(0x4020)); // 0x20(%rsp)
    check(&[0xC4, 0xA2, 0x75, 0x50, 0x04, 0x88], 0, 1, Place::Memory(0x24000)); // (%rax,%r9,4)
    check(&[0xC4, 0xE2, 0x75, 0x50, 0x04, 0x4D, 8, 0, 0, 0], 0, 1, Place::Memory(0x2008)); // 8(,%rcx,2)
    check(&[0xC4, 0xE2, 0x75, 0x50, 0x05, 0x10, 0, 0, 0], 0, 1, Place::Memory(0x419)); // 0x10(%rip)
    for other in
        [[0xC4, 0xE2, 0x75, 0x52, 0xD0], [0xC4, 0xE2, 0x71, 0x50, 0xD0], [0x62, 0xF2, 0x75, 0x28, 0x50]]
    {
        assert_eq!(decode(&other, 0, register), None, "{other:02x?}");
    }
}

#[test]
fn the_computed_dot_product_is_that_of_the_cpu() {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512vnni,avx512vl")]
    fn evex(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(acc, w, a)
    }
    #[target_feature(enable = "avxvnni")]
    fn vex(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(acc, w, a)
    }
    let mut state = 1u64;
    let mut bytes = || -> [u8; 32] {
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Ends of the ranges, often.
            [(state >> 56) as u8, 0, 127, 128, 255][(state >> 40) as usize % 5]
        })
    };
    let (evex_found, vex_found) = (
        is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl"),
        is_x86_feature_detected!("avxvnni"),
    );
    for (found, name) in [(evex_found, "EVEX (AVX-512 VNNI and VL)"), (vex_found, "VEX (AVX-VNNI)")] {
        if !found {
            eprintln!("skipped: the CPU lacks the {name} form");
        }
    }
    for _ in 0..1000 {
        let (acc, w, a) = (bytes(), bytes(), bytes());
        // SAFETY: 32 plain bytes each; each form is called where the CPU has it.
        unsafe {
            let [acc_v, w_v, a_v] = [acc, w, a].map(|x| std::mem::transmute::<[u8; 32], __m256i>(x));
            let [acc, a] = [acc, a].map(|x| std::mem::transmute::<[u8; 32], [i8; 32]>(x));
            let expected = dot(std::mem::transmute::<[i8; 32], [i32; 8]>(acc), w, a);
            if evex_found {
                let got = std::mem::transmute::<__m256i, [i32; 8]>(evex(acc_v, w_v, a_v));
                assert_eq!(got, expected);
            }
            if vex_found {
                let got = std::mem::transmute::<__m256i, [i32; 8]>(vex(acc_v, w_v, a_v));
                assert_eq!(got, expected);
            }
        }
    }
}
