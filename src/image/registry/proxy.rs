//! Which proxy leads to a host: the environment's variables, then `[proxies]` of the settings.

use std::net::IpAddr;

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::url::{Origin, Scheme};
use crate::error::Failure;
use crate::settings;

/// The proxies in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exempt: Vec<String>,
}

impl Proxies {
    /// Reads the environment through `variable`; what it does not say, `settings` says.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>, settings: &settings::Proxies) -> Proxies {
        // Lower case first, as curl does; empty means not set.
        let either = |name: &str| {
            let lower = variable(&name.to_ascii_lowercase()).filter(|value| !value.is_empty());
            lower.or_else(|| variable(name).filter(|value| !value.is_empty()))
        };
        let all = either("ALL_PROXY");
        // Inside CGI a client's header `Proxy:` arrives as HTTP_PROXY (CVE-2016-5385, "httpoxy").
        let http = if variable("REQUEST_METHOD").is_some() { None } else { either("HTTP_PROXY") };
        let exempt = either("NO_PROXY").or_else(|| settings.no_proxy.clone()).unwrap_or_default();
        Proxies {
            http: http.or_else(|| all.clone()).or_else(|| settings.http.clone()),
            https: either("HTTPS_PROXY").or(all).or_else(|| settings.https.clone()),
            exempt: exempt.split(',').map(|part| part.trim().to_ascii_lowercase()).filter(|p| !p.is_empty()).collect(),
        }
    }

    /// The proxy that leads to `origin`; `None` when it is reached directly, as this machine always is.
    ///
    /// # Errors
    /// A proxy whose URL is malformed or of a kind that is not known.
    pub(super) fn to(&self, origin: &Origin) -> Result<Option<ureq::Proxy>> {
        let chosen = match origin.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let Some(url) = chosen.as_deref().filter(|_| !origin.is_loopback() && !self.is_exempt(origin)) else {
            return Ok(None);
        };
        // Without the URL, which may hold a password.
        let proxy = ureq::Proxy::new(url).map_err(|_| {
            Failure::usage(format!("the proxy that is set for {origin} has a malformed URL"))
                .with_hint("it should look like http://proxy.example:3128, or socks5h://proxy.example:1080")
        })?;
        Ok(Some(proxy))
    }

    /// Whether `NO_PROXY` names the host: as itself, as a domain it is below, as an address, a network, or
    /// `*`; each but the last with or without a port.
    fn is_exempt(&self, origin: &Origin) -> bool {
        let host = origin.host.trim_start_matches('[').trim_end_matches(']');
        self.exempt.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            if let (Ok(network), Some(address)) = (entry.parse::<IpNetwork>(), origin.address()) {
                return network.contains(address);
            }
            // An IPv6 address has colons of its own.
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if entry.parse::<IpAddr>().is_err() => (name, port.parse::<u16>().ok()),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches('*');
            let domain = name.trim_start_matches('.');
            let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
            // `.example.com` means only what is below it.
            let itself = host == domain && !name.starts_with('.');
            !domain.is_empty() && (itself || below) && port.is_none_or(|port| port == origin.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry::url::Url;

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let settings = settings::Proxies { https: Some("http://settings:1".into()), ..Default::default() };
        let found = Proxies::new(variable, &settings).to(&Url::parse(url).unwrap().origin).unwrap();
        found.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn the_environment_outranks_the_settings() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(proxy(&[], "https://x/"), some("settings:1"));
        assert_eq!(proxy(&[], "http://x/"), None);
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://up:2"), ("https_proxy", "low:3")], "https://x/"), some("low:3"));
        assert_eq!(proxy(&[("ALL_PROXY", "http://all:4")], "http://x/"), some("all:4"));
        assert_eq!(proxy(&[("HTTP_PROXY", "http://h:5")], "http://x/"), some("h:5"));
        assert_eq!(proxy(&[("HTTP_PROXY", "http://h:5"), ("REQUEST_METHOD", "GET")], "http://x/"), None);
    }

    #[test]
    fn hosts_are_exempt_by_name_domain_network_and_port() {
        for (list, url, exempt) in [
            ("a.example", "https://a.example/", true),
            ("a.example", "https://b.a.example/", true),
            ("a.example", "https://ba.example/", false),
            (".a.example", "https://a.example/", false),
            (".a.example", "https://b.a.example/", true),
            ("*.a.example", "https://b.a.example/", true),
            ("x, 10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("a.example:444", "https://a.example/", false),
            ("a.example:444", "https://a.example:444/", true),
            ("fd00::1", "https://[fd00::1]/", true),
            ("*", "https://anything/", true),
            (",", "https://anything/", false),
        ] {
            assert_eq!(proxy(&[("NO_PROXY", list)], url).is_none(), exempt, "{list} {url}");
        }
        for here in ["https://127.0.0.1:5000/", "https://localhost/", "https://[::1]/"] {
            assert_eq!(proxy(&[], here), None, "{here}");
        }
    }

    #[test]
    fn a_malformed_proxy_is_named_without_its_secret() {
        let variable = |name: &str| (name == "HTTPS_PROXY").then(|| "http://u:secret@".to_owned());
        let proxies = Proxies::new(variable, &settings::Proxies::default());
        let error = proxies.to(&Url::parse("https://x/").unwrap().origin).unwrap_err().to_string();
        assert!(error.contains("https://x") && !error.contains("secret"), "{error}");
    }
}
