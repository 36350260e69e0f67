//! The number types of the library: `f32` and `f64`.

use crate::lanes::Lanes;

/// One number, as the naive twin of a register.
pub trait Real:
    Lanes + bytemuck::Pod + Default + PartialEq + Send + Sync + std::fmt::Debug + 'static
{
    /// self * a + b, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// 1 / sqrt(self), rounded twice.
    fn inverse_root(self) -> Self;
}

impl Real for f32 {
    fn mul_add(self, a: Self, b: Self) -> Self {
        f32::mul_add(self, a, b)
    }

    fn inverse_root(self) -> Self {
        1.0 / self.sqrt()
    }
}

impl Real for f64 {
    fn mul_add(self, a: Self, b: Self) -> Self {
        f64::mul_add(self, a, b)
    }

    fn inverse_root(self) -> Self {
        1.0 / self.sqrt()
    }
}
