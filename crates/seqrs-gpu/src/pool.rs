//! Buffers of a device that are used again.
//!
//! A new buffer is work for the driver, and is cleared before its first use. A training step needs
//! dozens, of the same sizes as the step before. So what is released is kept
//! for the next who asks for about as much; what is kept and what is in use are together at most
//! one and a half times what was once in use at the same time.

use std::collections::VecDeque;

/// What is kept, the oldest first.
#[derive(Default)]
pub(crate) struct Pool {
    kept: VecDeque<wgpu::Buffer>,
    in_use: u64,
    most_in_use: u64,
}

/// Bytes of a buffer for so many: an eighth of a power of two more at most, so that buffers of
/// about the same size can take each other's place.
pub(crate) fn rounded(bytes: u64, most: u64) -> u64 {
    let unit = (bytes.max(256).next_power_of_two() / 16).max(256);
    let rounded = bytes.next_multiple_of(unit);
    if rounded <= most { rounded } else { bytes.next_multiple_of(4) }
}

impl Pool {
    /// A buffer of exactly so many bytes that somebody used before; it holds anything.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<wgpu::Buffer> {
        let at = self.kept.iter().position(|buffer| buffer.size() == bytes)?;
        self.kept.remove(at)
    }

    /// Counts a buffer that is in use from now on.
    pub(crate) fn lend(&mut self, bytes: u64) {
        self.in_use += bytes;
        self.most_in_use = self.most_in_use.max(self.in_use);
        self.let_go();
    }

    /// Keeps a buffer that is in use no more.
    pub(crate) fn keep(&mut self, buffer: wgpu::Buffer) {
        self.in_use -= buffer.size();
        self.kept.push_back(buffer);
        self.let_go();
    }

    /// Lets all go that is kept, and forgets buffers of so many bytes that are in use no more.
    pub(crate) fn clear(&mut self, bytes: u64) {
        self.in_use -= bytes;
        self.most_in_use = self.in_use;
        self.kept.clear();
    }

    /// Buffers that are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    fn let_go(&mut self) {
        let most = (self.most_in_use + self.most_in_use / 2).saturating_sub(self.in_use);
        let mut sum: u64 = self.kept.iter().map(wgpu::Buffer::size).sum();
        while sum > most
            && let Some(oldest) = self.kept.pop_front()
        {
            sum -= oldest.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gpu;
    use crate::program::{BufferId, Program};

    #[test]
    fn sizes_are_rounded_up_a_little_and_never_above_the_limit() {
        let most = 128 << 20;
        for bytes in [4, 255, 256, 257, 1000, 4096, 1 << 20, (1 << 20) + 4, most - 4, most] {
            let rounded = rounded(bytes, most);
            assert!((bytes..=most).contains(&rounded), "{bytes}: {rounded}");
            assert!(rounded <= bytes.max(256) + bytes / 8 + 256, "{bytes}: {rounded}");
            assert_eq!(rounded % 4, 0);
        }
    }

    #[test]
    fn what_was_released_is_used_again() {
        let gpu = Gpu::noop();
        let mut ids = 1 << 40..;
        let mut step = |released: Vec<BufferId>| {
            let new: Vec<BufferId> = ids.by_ref().take(3).map(BufferId).collect();
            let buffers = new.iter().zip([1000, 5000, 9000]).map(|(&id, bytes)| (id, bytes));
            let program = Program { buffers: buffers.collect(), released, ..Default::default() };
            gpu.run(&program).unwrap();
            new
        };
        let mut held = step(Vec::new());
        for _ in 0..50 {
            held = step(held);
        }
        // Each step takes its buffers before it gives back those of the step before.
        let turn = gpu.state.wait(|| false).unwrap();
        assert_eq!((turn.content.buffers.len(), turn.content.pool.kept.len()), (3, 3));
        drop(turn);
        // Others are let go for what another shape needs.
        let small = Program {
            buffers: vec![(BufferId(1 << 41), 300)],
            released: held,
            ..Default::default()
        };
        gpu.run(&small).unwrap();
        let turn = gpu.state.wait(|| false).unwrap();
        let pool = &turn.content.pool;
        let kept: u64 = pool.kept.iter().map(wgpu::Buffer::size).sum();
        assert!(kept + pool.in_use <= pool.most_in_use / 2 * 3);
    }
}
