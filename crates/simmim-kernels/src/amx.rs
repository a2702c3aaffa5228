//! AMX, the tile registers of recent server CPUs: detection, the system's permission, and the shape of tiles.
//!
//! There are eight tile registers of 16 rows × 64 bytes. One instruction multiplies two of them and adds the product to
//! a third. The instructions are written as assembly, since their intrinsics are not part of stable Rust.
//! `product/amx.rs` has the products; this file has what must happen before and after them.
//!
//! ```text
//! register   holds                                  rows            bytes of a row
//! 0 1 2      sums of the upper half of a block      ceil(rows/2)    64
//! 3 4 5      sums of its lower half                 ceil(rows/2)    64
//! 6          a tile of A                            ceil(rows/2)    64
//! 7          a tile of B                            16              64
//! ```
//!
//! A product takes time in proportion to the rows that its registers were configured for. Register 6 serves both halves
//! of a block, so they have equally many rows; the halves of an odd number share one.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::cell::Cell;
use std::sync::OnceLock;

/// Rows of a tile register.
pub(crate) const TILE_ROWS: usize = 16;

/// Whether the CPU has the instructions and the system lets this process use them. The system is asked once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
}

/// Whether the CPU has the instructions, but the system does not let this process use them.
pub(crate) fn is_refused() -> bool {
    has_instructions() && !is_available()
}

/// Whether the CPU has tiles and their products of bf16.
fn has_instructions() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    if __cpuid(0).eax < 7 {
        return false; // there is no such leaf
    }
    let features = __cpuid_count(7, 0).edx; // Intel's manual, volume 2A, CPUID, leaf 7
    features & AMX_BF16 != 0 && features & AMX_TILE != 0
}

/// Asks Linux for the permission, which a process needs since the registers take 8 KiB of each thread's saved state.
/// Threads that are started later have it too.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023; // ARCH_REQ_XCOMP_PERM
    const TILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: this system call changes no memory of the process; `syscall` itself overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// No other system is known to permit it.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The memory form of a configuration (Intel's manual, volume 1, section 18.3).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

thread_local! {
    /// The rows of half a block that this thread's registers are configured for; zero if they are not.
    static CONFIGURED: Cell<u8> = const { Cell::new(0) };
    /// Whether they hold the sums of a product that is not finished.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Keeps this thread's registers as they are, as long as it exists: configuring or releasing them panics.
pub(crate) struct Held(());

impl Held {
    /// # Panics
    /// If they are held already.
    pub(crate) fn new() -> Self {
        assert!(!HELD.replace(true), "a product within a product");
        Self(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

/// Configures this thread's registers for halves of `rows` rows, 1 to 16, unless they are already. That takes as long
/// as about twenty products, so a thread keeps the configuration until [`release`].
///
/// # Panics
/// If they are [`Held`].
///
/// # Safety
/// [`is_available`] is true.
pub(crate) unsafe fn configure(rows: usize) {
    assert!((1..=TILE_ROWS).contains(&rows), "{rows} rows");
    assert!(!HELD.get(), "a product within a product");
    let rows = rows as u8;
    if CONFIGURED.get() == rows {
        return;
    }
    let mut configuration = Configuration {
        palette: 1, // the only one: eight registers of 1 KiB
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    configuration.row_bytes[..8].fill(64);
    configuration.rows[..7].fill(rows);
    configuration.rows[7] = TILE_ROWS as u8;
    // SAFETY: the caller promises that the CPU has the instruction and that it is permitted. The configuration is one
    // of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly)) }
    CONFIGURED.set(rows);
}

/// Frees this thread's registers, if they are in use, so that the system need not save them.
///
/// # Panics
/// If they are [`Held`].
pub(crate) fn release() {
    assert!(!HELD.get(), "registers are released within a product");
    if CONFIGURED.get() != 0 {
        // SAFETY: the registers were configured, so the CPU has the instruction and it is permitted.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
        CONFIGURED.set(0);
    }
}

/// Operations of one round of [`run_products`]: six products of 16 × 32 by 32 × 16.
pub(crate) const FLOPS_PER_ROUND: u64 = 6 * 2 * 16 * 32 * 16;

/// Multiplies tiles in registers, six sums in each round, and returns one value of the first sum: the number of
/// rounds, up to 2²⁴.
///
/// # Safety
/// [`is_available`] is true.
pub(crate) unsafe fn run_products(rounds: u64) -> f32 {
    const ONE: u16 = 0x3f80; // 1.0 in bf16
    // Numbers of both signs with different bits: how fast a CPU multiplies depends on the power it takes, which is least
    // for zeros. Neighboring values of B cancel, so sums do not grow, but for those of column 0: by a value of A in each
    // round, which is one in row 0.
    let mut a: [[u16; 32]; 16] =
        std::array::from_fn(|i| std::array::from_fn(|k| ONE | (37 * (i + k / 2)) as u16 & 0x7f));
    let mut b: [[u16; 32]; 16] = std::array::from_fn(|k| {
        std::array::from_fn(|n| ONE | (53 * (k + n / 2)) as u16 & 0x7f | ((n % 2) as u16) << 15)
    });
    (a[0][0], b[0][0], b[0][1]) = (ONE, ONE, 0);
    let mut sums = [[0.0f32; 16]; 16];
    // SAFETY: the caller promises that the unit is available. Tiles and sums are 16 rows of 64 bytes.
    unsafe {
        configure(TILE_ROWS);
        asm!(
            "tileloadd tmm6, [{a} + {row}]",
            "tileloadd tmm7, [{b} + {row}]",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "tilezero tmm4", "tilezero tmm5",
            "test {rounds}, {rounds}",
            "jz 3f",
            "2:",
            "tdpbf16ps tmm0, tmm6, tmm7",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tdpbf16ps tmm2, tmm6, tmm7",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "tdpbf16ps tmm4, tmm6, tmm7",
            "tdpbf16ps tmm5, tmm6, tmm7",
            "dec {rounds}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {row}], tmm0",
            a = in(reg) a.as_ptr(),
            b = in(reg) b.as_ptr(),
            c = in(reg) sums.as_mut_ptr(),
            row = in(reg) 64usize,
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
    release();
    sums[0][0]
}
