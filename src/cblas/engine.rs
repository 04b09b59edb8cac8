//! What all calls of the process share, the context, and what each thread owns, its scratch memory.

use super::arguments::{Checked, Refusal};
use crate::error::Error;
use crate::matmul::{Epilogue, matmul, matmul_workspace_bytes};
use crate::parallel::MAX_WORKERS;
use crate::{Context, ContextOptions, MatMut, MatRef, Workspace};
use std::cell::RefCell;
use std::sync::OnceLock;

/// Threads of the environment: the first number of the first variable that has one.
fn threads(variable: impl Fn(&str) -> Option<String>) -> usize {
    let number = |name: &str| {
        // OMP_NUM_THREADS may be a list, one number for each level of nesting.
        let text = variable(name)?;
        text.split(',').next()?.trim().parse::<usize>().ok().filter(|&n| n > 0)
    };
    number("KVERN_NUM_THREADS").or_else(|| number("OMP_NUM_THREADS")).unwrap_or(1).min(MAX_WORKERS)
}

/// The context of this process; in a child that a fork made it computes on the calling thread alone.
fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let options = ContextOptions::default().threads(threads(|name| std::env::var(name).ok()));
        // A machine that starts no thread still computes.
        Context::new(&options).unwrap_or_else(|_| Context::serial())
    })
}

/// Scratch memory of one thread.
pub(super) struct Scratch {
    workspace: Workspace,
    /// Gathered vectors: x and y of a strided product.
    pub x: Vec<f32>,
    pub y: Vec<f32>,
}

impl Scratch {
    fn new() -> Checked<Scratch> {
        let workspace = Workspace::new(0).map_err(Refusal::Failure)?;
        Ok(Scratch { workspace, x: Vec::new(), y: Vec::new() })
    }
}

/// Runs `body` on the thread's scratch memory, or on fresh memory where a thread that ends has none any more.
pub(super) fn with_scratch(body: impl FnOnce(&mut Scratch) -> Checked<()>) -> Checked<()> {
    thread_local! {
        static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
    }
    let mut scratch = match SCRATCH.try_with(|slot| slot.take()) {
        Ok(Some(scratch)) => scratch,
        _ => Scratch::new()?,
    };
    let result = body(&mut scratch);
    let _ = SCRATCH.try_with(|slot| slot.replace(Some(scratch)));
    result
}

/// `buffer` with room for `len` elements, all zero.
pub(super) fn zeroed(buffer: &mut Vec<f32>, len: usize) -> Checked<&mut [f32]> {
    buffer.clear();
    let failure = |_| Refusal::Failure(Error::Resource { what: "elements", amount: len });
    buffer.try_reserve_exact(len).map_err(failure)?;
    buffer.resize(len, 0.0);
    Ok(buffer)
}

impl Scratch {
    /// `C = alpha * A * B + beta * C`.
    pub fn multiply(
        &mut self,
        a: MatRef<'_>,
        b: MatRef<'_>,
        c: MatMut<'_>,
        (alpha, beta): (f32, f32),
    ) -> Checked<()> {
        let ctx = context();
        let epilogue = Epilogue::default().scaled(alpha, beta);
        matmul_workspace_bytes(ctx, c.rows(), c.cols(), a.cols())
            .and_then(|bytes| self.workspace.reserve(bytes))
            .and_then(|()| matmul(ctx, &mut self.workspace, a, b, c, &epilogue))
            .map_err(Refusal::Failure)
    }
}

#[cfg(test)]
mod tests {
    use super::threads;

    #[test]
    fn the_environment_says_how_many_threads() {
        let with = |kvern: Option<&str>, omp: Option<&str>| {
            threads(|name| if name == "KVERN_NUM_THREADS" { kvern } else { omp }.map(str::to_owned))
        };
        assert_eq!(with(None, None), 1);
        assert_eq!(with(None, Some("4,2")), 4);
        assert_eq!(with(Some("3"), Some("4")), 3);
        assert_eq!(with(Some("many"), Some(" 2 ")), 2);
        assert_eq!(with(Some("0"), None), 1);
        assert_eq!(with(Some("100000"), None), 256);
    }
}
