//! Progress bars for the long steps.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// As [`bar`], with room for a changing message after the label.
pub fn loss_bar(steps: u64, what: &'static str) -> ProgressBar {
    styled(steps, "{prefix:>14} [{bar:40}] {pos}/{len} {eta} {msg}").with_prefix(what)
}

/// A progress bar over `steps` steps on standard error, labelled `what`.
///
/// It draws nothing when standard error is no terminal, so that logs stay free of control characters. Call
/// `inc(1)` after each step and `finish_and_clear()` at the end.
pub fn bar(steps: u64, what: &'static str) -> ProgressBar {
    styled(steps, "{msg:>14} [{bar:40}] {pos}/{len} {eta}").with_message(what)
}

fn styled(steps: u64, template: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(steps).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_counts_its_steps() {
        let bar = bar(3, "test");
        bar.inc(1);
        bar.inc(2);
        assert_eq!(bar.position(), 3);
        bar.finish_and_clear();
    }
}
