//! Peak resident memory of the process, where the system reports it.

use std::fs;

/// Resets the peak to the current memory, where the system can (Linux); returns whether it did.
pub fn reset() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Peak resident memory in bytes since the start or the last [`reset`]; `None` if the system does not report
/// it.
pub fn bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_the_lines() {
        assert_eq!(parse("VmPeak:\t  9 kB\nVmHWM:\t    4321 kB\nVmRSS:\t 1 kB\n"), Some(4321 * 1024));
        for bad in ["", "VmHWM:", "VmHWM: x kB", "VmHWM: 5 MB", "VmHWM: 18446744073709551615 kB"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_peak_grows_with_the_memory_touched() {
        let before = bytes().unwrap();
        let touched = vec![1u8; 64 << 20];
        assert!(bytes().unwrap() >= before.min(64 << 20));
        assert!(touched.iter().all(|&x| x == 1));
        reset();
        assert!(bytes().unwrap() > 0);
    }
}
