//! The two types of number that vectors are scanned in.

#![allow(clippy::inline_always, reason = "these are single instructions")]

/// `f32` or `f64`.
pub trait Real: Copy + bytemuck::Pod + PartialOrd + Send + Sync + std::fmt::Debug {
    /// Elements in a cache line of 64 bytes.
    const PER_LINE: usize;
    /// Zero.
    const ZERO: Self;
    /// Not a number.
    const NAN: Self;

    /// `self + x * y`, rounded twice.
    #[must_use]
    fn plus_product(self, x: Self, y: Self) -> Self;
    /// `self + x * y`, rounded once; fast only where the CPU has the instruction.
    #[must_use]
    fn plus_product_fused(self, x: Self, y: Self) -> Self;
    /// `self + other`.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// `self - other`.
    #[must_use]
    fn minus(self, other: Self) -> Self;
    /// `self + |x - y|`.
    #[must_use]
    fn plus_difference(self, x: Self, y: Self) -> Self;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
    /// The table of kernels for this type and CPU.
    fn kernels() -> &'static super::Kernels<Self>;
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            const PER_LINE: usize = 64 / size_of::<$t>();
            const ZERO: Self = 0.0;
            const NAN: Self = $t::NAN;

            #[inline(always)]
            fn plus_product(self, x: Self, y: Self) -> Self {
                self + x * y
            }

            #[inline(always)]
            fn plus_product_fused(self, x: Self, y: Self) -> Self {
                x.mul_add(y, self)
            }

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self - other
            }

            #[inline(always)]
            fn plus_difference(self, x: Self, y: Self) -> Self {
                self + (x - y).abs()
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn kernels() -> &'static super::Kernels<Self> {
                static KERNELS: std::sync::OnceLock<super::Kernels<$t>> =
                    std::sync::OnceLock::new();
                KERNELS.get_or_init(|| super::kernels(super::Isa::best()))
            }
        }
    };
}

real!(f32);
real!(f64);
