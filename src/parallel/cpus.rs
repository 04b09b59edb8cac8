//! The CPUs that the calling thread may use, by affinity and by the quota of its control group.
//!
//! `std::thread::available_parallelism` answers the same on Linux, through buffers whose allocation ends the
//! process where there is no memory; on Windows it knows no affinity.

/// How many there are, at least 1.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn cpus() -> usize {
    linux::quota().unwrap_or(usize::MAX).min(linux::affinity()).max(1)
}

/// How many there are, at least 1: those of the process, because a thread does not inherit the affinity of
/// the one that starts it.
#[cfg(all(windows, not(miri)))]
pub(super) fn cpus() -> usize {
    use windows_sys::Win32::System::Threading::*;
    let (mut own, mut all) = (0, 0);
    // SAFETY: two numbers to write.
    let known = unsafe { GetProcessAffinityMask(GetCurrentProcess(), &mut own, &mut all) } != 0;
    if known && own != 0 {
        return own.count_ones() as usize;
    }
    // The process has threads in several groups of processors, which no mask holds.
    // SAFETY: asks for a number.
    (unsafe { GetActiveProcessorCount(ALL_PROCESSOR_GROUPS) } as usize).max(1)
}

/// How many there are, at least 1.
#[cfg(not(all(any(target_os = "linux", windows), not(miri))))]
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use std::fs::File;
    use std::io::{Read, Write};

    /// CPUs in the mask of the calling thread.
    pub fn affinity() -> usize {
        // SAFETY: an all-zero set is an empty one, and the call fills at most its size; the other call only
        // asks.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0 {
                return libc::CPU_COUNT(&set) as usize;
            }
            // More CPUs than a set holds.
            usize::try_from(libc::sysconf(libc::_SC_NPROCESSORS_ONLN)).unwrap_or(1)
        }
    }

    /// A small file as text; `None` where there is none, or more of it than fits.
    fn read<'a>(path: &[&str], buffer: &'a mut [u8; 4096]) -> Option<&'a str> {
        let mut name = [0u8; 383]; // beyond this `std` allocates for the system call
        let mut rest = &mut name[..];
        path.iter().try_for_each(|part| rest.write_all(part.as_bytes())).ok()?;
        let left = rest.len();
        let path = std::str::from_utf8(&name[..name.len() - left]).ok()?;
        let (mut file, mut len) = (File::open(path).ok()?, 0);
        while len < buffer.len() {
            match file.read(&mut buffer[len..]).ok()? {
                0 => return std::str::from_utf8(&buffer[..len]).ok(),
                n => len += n,
            }
        }
        None
    }

    /// A file of one number.
    fn number(path: &[&str]) -> Option<i64> {
        read(path, &mut [0; 4096])?.trim().parse().ok()
    }

    /// The least quota of the group of this process and of those above it, in whole CPUs.
    pub fn quota() -> Option<usize> {
        let mut buffer = [0; 4096];
        let groups = read(&["/proc/self/cgroup"], &mut buffer)?;
        // Each line is `number:controllers:path`; version 2 has no controllers.
        let least = groups.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            match controllers {
                "" => above(path).filter_map(unified).min(),
                _ if controllers.split(',').any(|name| name == "cpu") => {
                    above(path).filter_map(separate).min()
                }
                _ => None,
            }
        });
        least.min()
    }

    /// A group's path and those above it, up to the root's "".
    fn above(path: &str) -> impl Iterator<Item = &str> {
        let path = path.trim_end_matches('/');
        std::iter::successors(Some(path), |path| path.rfind('/').map(|end| &path[..end]))
    }

    fn whole(quota: i64, period: i64) -> Option<usize> {
        usize::try_from(quota.checked_div(period)?).ok()
    }

    /// Version 2: one file of quota and period.
    fn unified(path: &str) -> Option<usize> {
        let mut buffer = [0; 4096];
        let (quota, period) = read(&["/sys/fs/cgroup", path, "/cpu.max"], &mut buffer)?.split_once(' ')?;
        whole(quota.parse().ok()?, period.trim().parse().ok()?) // "max" is no number
    }

    /// Version 1: two files, where systems mount them. -1 is no quota.
    fn separate(path: &str) -> Option<usize> {
        ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].into_iter().find_map(|mount| {
            let quota = number(&[mount, path, "/cpu.cfs_quota_us"]).filter(|quota| *quota > 0)?;
            whole(quota, number(&[mount, path, "/cpu.cfs_period_us"])?)
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn paths_end_at_the_root() {
            assert_eq!(above("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
            assert_eq!(above("/").collect::<Vec<_>>(), [""]);
            assert_eq!(
                (whole(250_000, 100_000), whole(50_000, 100_000), whole(1, 0)),
                (Some(2), Some(0), None)
            );
        }

        #[test]
        fn the_answer_is_that_of_the_standard_library() {
            assert_eq!(super::super::cpus(), std::thread::available_parallelism().unwrap().get());
        }
    }
}

#[cfg(all(test, windows))]
mod tests {
    #[test]
    fn the_process_has_some_of_the_cpus() {
        let all = std::thread::available_parallelism().unwrap().get();
        assert!((1..=all).contains(&super::cpus()));
    }
}
