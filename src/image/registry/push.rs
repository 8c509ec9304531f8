//! What a push asks of a repository.

use anyhow::Result;
use ureq::http::Method;

use super::body::drain;
use super::exchange::{Call, Payload};
use super::fault::Trouble;
use super::pull::{content_digest, exists};
use super::{Registry, Target, quietly};
use crate::error::Failure;
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;

impl Registry {
    /// Whether the repository is known to have this blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let ask = || {
            let (endpoint, session) = self.itself()?;
            let url = endpoint.url(&session, &format!("{}/blobs/{digest}", self.path));
            exists(&session, url, self.patience())
        };
        ask().map_err(|trouble| self.explain_push(trouble))
    }

    /// Takes a blob over from another repository of the same registry; `false` when the registry wants it
    /// uploaded, or `from` is of another registry.
    pub fn mount(&self, digest: &Digest, from: &Reference) -> Result<bool> {
        if from.domain() != self.domain || from.path() == self.path {
            return Ok(false);
        }
        let scope = format!("repository:{}:pull", from.path());
        let ask = || -> Result<bool, Trouble> {
            let (endpoint, session) = self.itself()?;
            session.guard.widen(scope.clone());
            let url = endpoint.url(&session, &format!("{}/blobs/uploads/", self.path));
            let url = url.with("mount", &digest.to_string()).with("from", from.path());
            let response = session.once(&Call::new(Method::POST, url.clone()))?;
            if response.status().as_u16() == 201 {
                drain(response);
                return Ok(true);
            }
            // 202: the registry has begun an upload instead, which is not what was asked for.
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let location = location.map(|location| url.join(location));
            drain(response);
            if let Some(Ok(upload)) = location
                && let Ok(response) = session.once(&Call::new(Method::DELETE, upload))
            {
                drain(response);
            }
            Ok(false)
        };
        match ask() {
            Ok(mounted) => Ok(mounted),
            // Whether we may read there, and whether it is there, is only worth a shortcut. If more is wrong, the
            // upload will tell.
            Err(trouble) => {
                tracing::debug!(reason = trouble.reason(), "no mount");
                if let Ok((_, session)) = self.itself() {
                    session.guard.narrow(&scope);
                }
                Ok(false)
            }
        }
    }

    /// Puts a manifest under a tag or its digest; gives its digest.
    ///
    /// # Errors
    /// The registry refuses it, or confirms another digest than that of `bytes`.
    pub fn put_manifest(&self, target: Target<'_>, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let put = || {
            let (endpoint, session) = self.itself()?;
            let url = endpoint.url(&session, &format!("{}/manifests/{}", self.path, target.text()));
            let mut call = Call::new(Method::PUT, url).header("content-type", media_type);
            call.payload = Payload::Bytes(bytes);
            // Twice the same is the same as once, so it may be repeated.
            let response = session.call(&call, self.patience(), &quietly)?;
            let confirmed = content_digest(&response);
            drain(response);
            match confirmed {
                Some(other) if other != digest => Err(Failure::engine(format!(
                    "registry {} confirms manifest {other} instead of {digest}",
                    session.origin
                ))
                .into()),
                _ => Ok(()),
            }
        };
        put().map_err(|trouble: Trouble| self.explain_push(trouble))?;
        Ok(digest)
    }

    /// A failed push in Docker's words.
    pub(super) fn explain_push(&self, trouble: Trouble) -> anyhow::Error {
        if !trouble.is_refusal() {
            return trouble.error;
        }
        let server = if self.domain == "docker.io" { String::new() } else { format!(" {}", self.domain) };
        let known = self.endpoints.last().is_some_and(super::Endpoint::has_credential);
        let hint = match (known, self.unread()) {
            (_, Some(unread)) => unread,
            (true, None) => {
                format!("the account that is logged in may not push to {}; try mydocker login{server}", self.familiar)
            }
            (false, None) => format!("log in: mydocker login{server}"),
        };
        let reason = trouble.reason();
        // Docker's word for it, whichever the registry's.
        let denied = reason.contains("denied") || reason.contains("no basic auth") || reason.contains("unauthorized");
        let message = if denied { reason } else { format!("denied: {reason}") };
        Failure::engine(message).with_hint(hint).into()
    }
}
