//! The peers, behind one signature: `C = A B`, row-major f32.

mod blas;
mod crates;

/// A library that multiplies f32 matrices.
pub trait Peer {
    /// Its name in the tables.
    fn name(&self) -> &str;

    /// `c = a * b`: (m, k) x (k, n), dense row-major.
    fn sgemm(&self, shape: (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]);
}

/// Every peer that this machine has, set to `threads` threads. Missing libraries are named.
pub fn all(threads: usize) -> Vec<Box<dyn Peer>> {
    let mut peers = crates::all(threads);
    peers.extend(blas::installed(threads));
    peers
}
