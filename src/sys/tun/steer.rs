//! Which queue of a TUN interface a packet comes out of: a small program that the kernel runs.
//!
//! Without it the kernel has a flow follow the queue by which its answers come in. All flows to one
//! peer would end up in one queue, and change it, overtaking themselves, whenever the peer moves.
//! [LNX drivers/net/tun.c:tun_flow_update] The program computes a number from addresses, and from
//! ports where the packet is TCP or UDP and whole; the rest of its division by the number of queues
//! is the queue. Equal flows, equal queue, for the life of the interface.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Tun;
use crate::sys::{SysError, check};

/// One instruction of the kernel's virtual machine. [LNX include/uapi/linux/bpf.h:bpf_insn]
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The front part of `union bpf_attr` that loading a program needs.
#[derive(Debug)]
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// `_IOR('T', 224, int)`.
const TUNSETSTEERINGEBPF: libc::Ioctl = libc::_IOR::<libc::c_int>(b'T' as u32, 224);

impl Tun {
    /// Lets each flow come out of one queue for good, whatever queue its answers are written to.
    ///
    /// # Errors
    /// The kernel has no such programs (before Linux 4.16), or CAP_BPF or CAP_SYS_ADMIN is missing.
    pub fn steer_by_flow(&self) -> Result<(), SysError> {
        let program = load(&program())?;
        set_steering(self.as_fd(), program.as_raw_fd())
    }
}

/// The interface keeps the program; its descriptor need not stay open.
fn set_steering(tun: BorrowedFd<'_>, program: libc::c_int) -> Result<(), SysError> {
    // SAFETY: `tun` is open for the call; the kernel reads one int, an initialised local.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const program) };
    check("ioctl TUNSETSTEERINGEBPF", set)?;
    Ok(())
}

fn load(program: &[Instruction]) -> Result<OwnedFd, SysError> {
    let attributes = Load {
        program_type: BPF_PROG_TYPE_SOCKET_FILTER,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr().addr() as u64,
        licence: c"MIT".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `size_of::<Load>()` bytes of `attributes`, and in them the addresses
    // of `program` with its count and of a string that ends with a zero; all outlive the call.
    let loaded = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Load>())
    };
    let number = check("bpf BPF_PROG_LOAD", libc::c_int::try_from(loaded).unwrap_or(-1))?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Registers: the result and what is loaded; the packet, where loads want it; and our own.
const LOADED: u8 = 0;
const ARGUMENT: u8 = 1;
const PACKET: u8 = 6;
const HASH: u8 = 7;
const HEADER: u8 = 8;
const VERSION: u8 = 9;

/// Odd numbers without a pattern, to multiply with.
const MIX: i32 = 0x2545_f491;
const LAST_MIX: i32 = 0x1e35_a7bd;

const TCP: i32 = 6;
const UDP: i32 = 17;

/// The program. A load beyond the packet's end ends it with the result 0.
fn program() -> Vec<Instruction> {
    // Continues the hash with what was loaded.
    let mix_in = [multiply(HASH, MIX), op(0x0f, HASH, LOADED, 0, 0)];
    // TCP or UDP: their ports follow the header; else on to what follows this part.
    let ports = [
        jump_if_equal(LOADED, TCP, 2),
        jump_if_equal(LOADED, UDP, 1),
        jump(3),
        load_word_behind(HEADER),
        mix_in[0],
        mix_in[1],
    ];
    let mut v6 = vec![set(HASH, 0)];
    for word in 2..10 {
        v6.push(load_word(word * 4));
        v6.extend(mix_in);
    }
    v6.extend([set(HEADER, 40), load_byte(6)]);
    let whole = [
        load_byte(0),
        op(0x57, LOADED, 0, 0, 0x0f),
        op(0x67, LOADED, 0, 0, 2),
        copy(HEADER, LOADED),
        load_byte(9),
        jump(v6.len()),
    ];
    let mut v4 = vec![load_word(12), copy(HASH, LOADED), load_word(16)];
    v4.extend(mix_in);
    // A fragment has no ports, or is one of several, of which only the first has.
    v4.extend([load_half(6), op(0x57, LOADED, 0, 0, 0x3fff)]);
    v4.push(jump_unless_zero(LOADED, whole.len() + v6.len() + ports.len()));
    v4.extend(whole);
    let mut program = vec![copy(PACKET, ARGUMENT), load_byte(0), copy(VERSION, LOADED)];
    program.extend([shift_right(VERSION, 4), jump_if_equal(VERSION, 6, v4.len())]);
    program.extend(v4);
    program.extend(v6);
    program.extend(ports);
    program.extend([copy(LOADED, HASH), shift_right(LOADED, 29), op(0xaf, LOADED, HASH, 0, 0)]);
    program.extend([multiply(LOADED, LAST_MIX), shift_right(LOADED, 32), op(0x95, 0, 0, 0, 0)]);
    program
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    // Bit fields, whose order the machine decides.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    Instruction { code, registers, offset, immediate }
}

const fn set(to: u8, value: i32) -> Instruction {
    op(0xb7, to, 0, 0, value)
}

const fn copy(to: u8, from: u8) -> Instruction {
    op(0xbf, to, from, 0, 0)
}

const fn multiply(to: u8, by: i32) -> Instruction {
    op(0x27, to, 0, 0, by)
}

const fn shift_right(to: u8, bits: i32) -> Instruction {
    op(0x77, to, 0, 0, bits)
}

const fn load_byte(at: i32) -> Instruction {
    op(0x30, 0, 0, 0, at)
}

const fn load_half(at: i32) -> Instruction {
    op(0x28, 0, 0, 0, at)
}

const fn load_word(at: i32) -> Instruction {
    op(0x20, 0, 0, 0, at)
}

const fn load_word_behind(header: u8) -> Instruction {
    op(0x40, 0, header, 0, 0)
}

/// Jumps forward, past so many instructions. The program has fewer than a hundred.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below a hundred")]
const fn jump(past: usize) -> Instruction {
    op(0x05, 0, 0, past as i16, 0)
}

const fn jump_if_equal(register: u8, value: i32, past: usize) -> Instruction {
    Instruction { code: 0x15, immediate: value, ..with_register(jump(past), register) }
}

const fn jump_unless_zero(register: u8, past: usize) -> Instruction {
    Instruction { code: 0x55, ..with_register(jump(past), register) }
}

const fn with_register(jump: Instruction, register: u8) -> Instruction {
    op(jump.code, register, 0, jump.offset, jump.immediate)
}
