//! The compute context of the command line's options.

use anyhow::{Context as _, Result};
use kvern::{Context, ContextOptions, Isa};

/// A context of `threads` threads with no instruction set above `isa`.
///
/// # Errors
/// When the CPU lacks `isa`, or threads cannot be started; the message names both options.
pub fn context(isa: Option<Isa>, threads: usize) -> Result<Context> {
    let mut options = ContextOptions::default();
    // One thread is the caller's own: nothing to start.
    if threads != 1 {
        options = options.threads(threads);
    }
    if let Some(isa) = isa {
        options = options.isa_cap(isa);
    }
    let isa = isa.map_or("best".into(), |isa| isa.to_string());
    Context::new(&options).with_context(|| format!("no context for --isa {isa} and --threads {threads}"))
}

/// The tier and the threads of a context, for people: `avx512, 2 threads`.
pub fn describe(ctx: &Context) -> String {
    let threads = ctx.max_threads();
    format!("{}, {threads} thread{}", ctx.isa(), if threads == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_what_the_options_say() {
        let ctx = context(Some(Isa::Scalar), 2).unwrap();
        assert_eq!(describe(&ctx), "scalar, 2 threads");
        let ctx = context(None, 1).unwrap();
        assert_eq!(ctx.isa(), Isa::detect());
        assert!(describe(&ctx).ends_with(", 1 thread"));
    }

    #[test]
    fn what_the_machine_lacks_is_named() {
        let error = format!("{:#}", context(None, 0).unwrap_err());
        assert!(error.contains("--threads 0"), "{error}");
        for isa in Isa::ALL.iter().filter(|isa| !isa.is_available()) {
            let error = format!("{:#}", context(Some(*isa), 1).unwrap_err());
            assert!(error.contains(&format!("--isa {isa}")), "{error}");
        }
    }
}
