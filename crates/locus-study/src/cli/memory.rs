//! Memory, where the system tells of it: Linux.

/// Bytes of memory that new processes can have without swapping; `None` where the system does not tell.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = 1024 * of_line(&text, "MemAvailable:")?;
    // A container may have less than the machine; what it holds of files can be dropped.
    let group = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let number = |file: &str| group(file)?.trim().parse::<u64>().ok();
    let in_group = || {
        let files = of_line(&group("memory.stat")?, "inactive_file ").unwrap_or_default();
        Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(files)))
    };
    Some(in_group().map_or(system, |group| group.min(system)))
}

/// Bytes of memory that this process has had at most; `None` where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    Some(1024 * of_line(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")?)
}

/// The number behind a name in a list of names and numbers.
fn of_line(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_name() {
        let text = "MemTotal:       24689764 kB\nMemAvailable:   23012345 kB\n";
        assert_eq!(of_line(text, "MemAvailable:"), Some(23_012_345));
        assert_eq!(of_line(text, "MemSwap:"), None);
        assert_eq!(of_line("inactive_file 4096\n", "inactive_file "), Some(4096));
    }

    /// An array that was written to counts.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_at_least_what_is_held() {
        let held = vec![1u8; 1 << 24];
        let peak = peak_memory().unwrap();
        assert!(peak > held.iter().map(|&x| u64::from(x)).sum::<u64>(), "{peak}");
        assert!(available_memory().unwrap() > 0);
    }
}
