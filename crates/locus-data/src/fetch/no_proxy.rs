//! Hosts that are reached without a proxy.

use std::net::IpAddr;

/// Whether a list of the layout of `NO_PROXY` names a host (without brackets, if it is an IPv6 address).
///
/// Items are separated by commas or spaces: `*`; a name, which covers the names below it, too, with or without a dot in
/// front (`example.org`, `.example.org`, `*.example.org`); an address; a network (`10.0.0.0/8`). A port behind an item
/// is not looked at.
pub(super) fn names_host(list: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty()).any(|item| {
        if item == "*" {
            return true;
        }
        if let Some(address) = address {
            return covers(item, address);
        }
        let name = match item.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => item,
        };
        let name = name.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
        let above = host.strip_suffix(&name);
        !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

/// Whether an item (an address, perhaps in brackets or with a port, or a network) covers an address.
fn covers(item: &str, address: IpAddr) -> bool {
    if let Some((network, bits)) = item.split_once('/') {
        let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
        return match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
                (network.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
                (network.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        };
    }
    let without_port = match item.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => match item.split_once(':') {
            Some((head, tail)) if !tail.contains(':') => head,
            _ => item,
        },
    };
    without_port.parse() == Ok(address)
}

#[cfg(test)]
mod tests {
    use super::names_host;

    #[test]
    fn names_addresses_and_networks() {
        for (list, host) in [
            ("*", "a.b"),
            ("a.b", "a.b"),
            ("x, A.B ", "a.b"),
            (".a.b", "c.a.b"),
            (".a.b", "a.b"),
            ("*.a.b", "c.a.b"),
            ("a.b", "d.c.A.b"),
            ("a.b:8080", "a.b"),
            ("x a.b", "a.b."),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("0.0.0.0/0", "10.1.2.3"),
            ("::1", "::1"),
            ("[::1]:80", "::1"),
            ("fe80::/10", "fe80::1"),
        ] {
            assert!(names_host(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("", "a.b"),
            (" ,,", "a.b"),
            ("a.b", "xa.b"),
            ("a.b", "b"),
            (".", "a.b"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/33", "10.1.2.3"),
            ("10.0.0.0/x", "10.1.2.3"),
            ("::/0", "10.1.2.3"),
            ("0.0.1", "127.0.0.1"),
        ] {
            assert!(!names_host(list, host), "{list} {host}");
        }
    }
}
