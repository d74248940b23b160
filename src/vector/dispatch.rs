//! Compiling one body for each instruction set.

#![allow(unsafe_code, reason = "calling functions compiled for an instruction set")]

/// Declares a module with the function `on`, which gives `$body`, an `#[inline(always)]` function,
/// as compiled for an instruction set. For [`Isa::Scalar`](super::Isa) it is the body as it is.
macro_rules! dispatched {
    ($name:ident: fn($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $body:ident) => {
        pub(super) mod $name {
            #![allow(unsafe_code, reason = "calling functions compiled for an instruction set")]
            use crate::vector::Isa;
            use crate::vector::dispatch::dispatched;

            pub(in crate::vector) type Kernel = fn($($type),*) $(-> $ret)?;

            dispatched!(@module avx2, "x86_64", "avx2,fma", ($($arg: $type),*) $(-> $ret)? = $body);
            dispatched!(
                @module avx512, "x86_64", "avx512f,avx512bw", ($($arg: $type),*) $(-> $ret)? = $body
            );
            dispatched!(@module neon, "aarch64", "neon", ($($arg: $type),*) $(-> $ret)? = $body);

            /// # Panics
            /// If this CPU does not have the instruction set.
            pub(in crate::vector) fn on(isa: Isa) -> Kernel {
                assert!(Isa::available().contains(&isa), "this CPU does not have {isa:?}");
                match isa {
                    Isa::Scalar => super::$body,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::run,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512::run,
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => neon::run,
                }
            }
        }
    };
    (@module $isa:ident, $arch:literal, $features:literal,
     ($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $body:ident) => {
        #[cfg(target_arch = $arch)]
        mod $isa {
            #[target_feature(enable = $features)]
            fn compiled($($arg: $type),*) $(-> $ret)? {
                super::super::$body($($arg),*)
            }

            pub(super) fn run($($arg: $type),*) $(-> $ret)? {
                // SAFETY: `on`, the only place that hands this function out, has asserted that the
                // CPU has the features.
                unsafe { compiled($($arg),*) }
            }
        }
    };
}

pub(super) use dispatched;

/// Asks the CPU to fetch what the slice holds; it will be read soon.
#[inline]
pub fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let bytes = size_of_val(slice);
        for line in (0..bytes).step_by(64) {
            // SAFETY: a prefetch reads nothing that the program could see, and faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().cast::<i8>().wrapping_add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}
