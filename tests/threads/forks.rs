//! Contexts are made, used and destroyed in any order on both sides of forks.

use crate::capi::context_options;
use crate::support::Random;
use kvern::capi::context::*;
use kvern::capi::matmul::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

const S: usize = 192; // a product that is cut into items

/// What a process has: contexts of its own and of its parents, and what a product needs.
struct World {
    contexts: Vec<*mut kvern_context>,
    ws: *mut kvern_workspace,
    a: Vec<f32>,
    c: Vec<f32>,
    want: Vec<f32>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let (a, mut ws) = (random.vec(S * S), null_mut());
        // SAFETY: `ws` is a live local.
        assert_eq!(unsafe { kvern_workspace_create(null(), 16 << 20, &mut ws) }, 0);
        let (c, want) = (vec![0.0; S * S], vec![0.0; S * S]);
        let mut world = World { contexts: Vec::new(), ws, a, c, want, random };
        assert!(world.create(1) && world.multiply(0));
        world.want.copy_from_slice(&world.c);
        world.destroy(0);
        world
    }

    fn create(&mut self, threads: u32) -> bool {
        let (mut ctx, options) = (null_mut(), kvern_context_options { threads, ..context_options() });
        // SAFETY: both pointers point to live locals.
        let status = unsafe { kvern_context_create(&options, &mut ctx) };
        self.contexts.push(ctx);
        status == 0
    }

    fn multiply(&mut self, i: usize) -> bool {
        self.c.fill(-1.0);
        let (ctx, a, c) = (self.contexts[i], self.a.as_ptr(), self.c.as_mut_ptr());
        // SAFETY: every pointer is live and of the stated size.
        unsafe { kvern_matmul(ctx, self.ws, S, S, S, a, S, 0, a, S, 0, c, S, null()) == 0 }
    }

    fn destroy(&mut self, i: usize) -> bool {
        // SAFETY: nothing uses it any more. An internal error would leave a message.
        unsafe { kvern_context_destroy(self.contexts.swap_remove(i)) };
        crate::capi::message().is_empty()
    }

    fn right(&self) -> bool {
        self.c.iter().zip(&self.want).all(|(c, want)| c.to_bits() == want.to_bits())
    }

    /// Random steps; what failed, or 0.
    fn live(&mut self, steps: usize, depth: usize) -> i32 {
        for _ in 0..steps {
            let contexts = self.contexts.len();
            match self.random.below(8) {
                0 | 1 if contexts < 4 => {
                    let threads = 1 + self.random.below(4) as u32;
                    if !self.create(threads) {
                        return 1;
                    }
                }
                2 if contexts > 0 => {
                    let i = self.random.below(contexts);
                    if !self.destroy(i) {
                        return 2;
                    }
                }
                3 if depth < 3 => {
                    let child = self.fork(steps / 2, depth + 1);
                    if child != 0 {
                        return 10 * child;
                    }
                }
                _ if contexts > 0 => {
                    let i = self.random.below(contexts);
                    if !self.multiply(i) || !self.right() {
                        return 3;
                    }
                }
                _ => {}
            }
        }
        while !self.contexts.is_empty() {
            let i = self.random.below(self.contexts.len());
            if !self.destroy(i) {
                return 4;
            }
        }
        0
    }

    /// Lives in a child, and tells what failed there.
    fn fork(&mut self, steps: usize, depth: usize) -> i32 {
        // SAFETY: the child calls nothing but kvern, the allocator, comparisons and `_exit`.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                libc::alarm(60);
                self.random = Random::new(self.random.next() ^ depth as u64);
                libc::_exit(self.live(steps, depth).min(127));
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 9 }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { kvern_workspace_destroy(self.ws) };
    }
}

#[test]
fn any_order_of_create_use_and_destroy_across_forks() {
    for seed in 0..12 {
        let failed = World::new(seed).live(24, 0);
        assert_eq!(
            failed, 0,
            "seed {seed}: 1 create, 2 and 4 destroy, 3 use, 9 killed; tens are generations"
        );
    }
}

/// The child makes a context, destroys its parent's, uses its own and destroys it.
#[test]
fn a_child_destroys_its_parents_context_before_its_own() {
    for threads in [2, 3, 8] {
        let mut world = World::new(1);
        assert!(world.create(threads) && world.multiply(0) && world.right());
        // SAFETY: as in `World::fork`.
        let status = unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                libc::alarm(60);
                let right = world.create(threads)
                    && world.destroy(0)
                    && world.multiply(0)
                    && world.right()
                    && world.destroy(0);
                libc::_exit(i32::from(!right));
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with {status}");
        assert!(world.multiply(0) && world.right() && world.destroy(0));
    }
}
