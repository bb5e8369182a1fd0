//! Whether a request comes from a page of ours.

/// Whether a state-changing request may be taken. Browsers send `Origin` with
/// every POST, and `Sec-Fetch-Site` where the connection is trusted; a tool
/// without a browser sends neither, and cannot be made to send a request by
/// somebody else's page.
pub(super) fn is_same(origin: Option<&str>, fetch_site: Option<&str>, host: Option<&str>) -> bool {
    if fetch_site.is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    match origin {
        None => true,
        Some(origin) => {
            let authority = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            match (authority, host) {
                (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_origin_and_no_browser_at_all() {
        let host = Some("pi:8080");
        for (origin, fetch_site, same) in [
            (None, None, true),
            (Some("http://pi:8080"), None, true),
            (Some("http://PI:8080"), Some("same-origin"), true),
            (None, Some("none"), true),
            (Some("http://pi:8081"), None, false),
            (Some("http://evil"), None, false),
            (Some("http://pi:8080.evil"), None, false),
            (Some("null"), None, false),
            (Some("http://pi:8080"), Some("cross-site"), false),
            (None, Some("same-site"), false),
        ] {
            assert_eq!(
                is_same(origin, fetch_site, host),
                same,
                "{origin:?} {fetch_site:?}"
            );
        }
        assert!(!is_same(Some("http://pi:8080"), None, None));
    }
}
