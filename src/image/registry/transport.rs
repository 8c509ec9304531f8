//! Connections: one pool an origin, with the trust, the proxy and the patience that belong to it.
//!
//! Redirects and statuses are the caller's business (`exchange`), so that nothing is sent anywhere before
//! the rules on credentials had their say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, AsSendBody, Body};

use super::proxy::Proxies;
use super::trust::{self, Insecure, Local};
use super::url::{Origin, Scheme};
use crate::error::Failure;
use crate::settings::Settings;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a registry may think before its response begins.
const RESPONSE: Duration = Duration::from_secs(30);
/// How long it may think after it got a whole blob, which it digests and moves then.
const COMMIT: Duration = Duration::from_secs(300);
/// How long it may be silent within a body.
const IDLE: Duration = Duration::from_secs(60);
/// How long a whole document may take.
const DOCUMENT: Duration = Duration::from_secs(300);
/// The headers of a response, in bytes.
const MAX_HEADERS: usize = 64 * 1024;
/// What is read from a socket at once. Larger than the 64 KiB that a loopback segment carries: a read takes
/// what has arrived meanwhile.
const INPUT: usize = 256 * 1024;
/// What is written to a socket at once.
const OUTPUT: usize = 256 * 1024;
/// Connections kept for later; more threads than this never fetch at once.
const IDLE_CONNECTIONS: usize = 16;

/// How long which part of an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A document: bounded as a whole.
    Document,
    /// A blob on its way to us: as long as it moves.
    Download,
    /// Content on its way to the registry, who thinks about it afterwards.
    Upload,
}

/// The connections of one client.
pub(super) struct Transport {
    agents: Mutex<HashMap<Origin, Agent>>,
    system: Mutex<Option<Arc<Vec<Certificate<'static>>>>>,
    pub(super) insecure: Insecure,
    proxies: Proxies,
    certificates: Vec<PathBuf>,
    /// Shortens all waiting.
    limit: Duration,
}

impl std::fmt::Debug for Transport {
    /// Without proxies, whose URLs may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    /// Connections under these settings and the environment's proxies.
    pub(super) fn new(settings: &Settings) -> Transport {
        Transport {
            agents: Mutex::default(),
            system: Mutex::default(),
            insecure: Insecure::new(&settings.insecure_registries),
            proxies: Proxies::new(|name| std::env::var(name).ok(), &settings.proxies),
            certificates: vec!["/etc/docker/certs.d".into(), settings.directory.join("certs.d")],
            limit: settings.registry_timeout.unwrap_or(Duration::MAX),
        }
    }

    /// How long a peer may be silent within a body.
    pub(super) fn idle(&self) -> Duration {
        IDLE.min(self.limit)
    }

    /// Sends a request and receives the head of the response.
    ///
    /// # Errors
    /// A [`ureq::Error`] in the chain for what happened on the wire; others when it could not be begun.
    pub(super) fn send(
        &self,
        origin: &Origin,
        request: Request<impl AsSendBody>,
        kind: Kind,
    ) -> Result<Response<Body>> {
        let agent = self.agent(origin)?;
        let (response, silence, whole) = match kind {
            Kind::Document => (RESPONSE, IDLE, Some(DOCUMENT)),
            Kind::Download => (RESPONSE, IDLE, None),
            Kind::Upload => (COMMIT, COMMIT, Some(DOCUMENT)),
        };
        let request = agent
            .configure_request(request)
            .timeout_recv_response(Some(response.min(self.limit)))
            .timeout_per_read(Some(silence.min(self.limit)))
            .timeout_recv_body(whole.map(|whole| whole.min(self.limit.saturating_mul(5))))
            .build();
        Ok(agent.run(request)?)
    }

    fn agent(&self, origin: &Origin) -> Result<Agent> {
        // A thread that panicked has left the map as it was.
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(origin) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("mydocker/", env!("CARGO_PKG_VERSION")))
            // A blob is compressed already, and its digest is that of the bytes as they are.
            .accept_encoding("identity")
            .proxy(self.proxies.to(origin)?)
            .timeout_resolve(Some(CONNECT.min(self.limit)))
            .timeout_connect(Some(CONNECT.min(self.limit)))
            .timeout_per_write(Some(self.idle()))
            .max_response_header_size(MAX_HEADERS)
            .input_buffer_size(INPUT)
            .output_buffer_size(OUTPUT)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS);
        if origin.scheme == Scheme::Https {
            config = config.tls_config(self.tls(origin)?);
        }
        let agent: Agent = config.build().into();
        agents.insert(origin.clone(), agent.clone());
        Ok(agent)
    }

    fn tls(&self, origin: &Origin) -> Result<TlsConfig> {
        let local = Local::read(&self.certificates, origin)?;
        let insecure = self.insecure.covers(origin);
        let roots = if local.authorities.is_empty() && !insecure {
            self.system_roots()?
        } else if insecure {
            Arc::default()
        } else {
            let system = self.system_roots()?;
            Arc::new(system.iter().cloned().chain(local.authorities).collect())
        };
        if roots.is_empty() && !insecure {
            return Err(Failure::engine(format!("cannot verify {origin}: this system has no certificate authorities"))
                .with_hint("install the package ca-certificates, or set SSL_CERT_FILE")
                .into());
        }
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(roots))
            .client_cert(local.client)
            .disable_verification(insecure)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }

    fn system_roots(&self) -> Result<Arc<Vec<Certificate<'static>>>> {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roots) = &*system {
            return Ok(Arc::clone(roots));
        }
        let roots = Arc::new(trust::system().context("load certificate authorities")?);
        *system = Some(Arc::clone(&roots));
        Ok(roots)
    }
}
