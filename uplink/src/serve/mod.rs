//! Takes QUIC connections; gives whole, verified batches to an [`Intake`] and its answers back. Never acks a
//! batch before the intake has it durably, and takes no identity from anything but a certificate.

mod condition;
mod connections;
mod crowd;
mod delivery;
mod enrolment;
mod limits;
mod renewal;
#[cfg(test)]
mod tests;
mod totals;

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::HandshakeData;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming, ServerConfig,
    TokioRuntime, VarInt,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub use totals::ServeTotals;

use crate::authority::{AuthorityError, CertificateAuthority};
use crate::batch::BATCH_BYTES_MAX;
use crate::certificate::{self, now_unix_s, utc};
use crate::intake::Intake;
use crate::tls::{self, TlsError};
use crate::wire::{ALPN_DELIVERY, ALPN_ENROLMENT, ALPN_RENEWAL, Close};
use connections::Connections;
use crowd::{Crowd, Place};
use limits::WrongCodes;
use totals::Totals;

/// How long a shutdown waits for commits, and again for the goodbyes.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Bytes that a connection may have on the way before it has shown a certificate.
const WINDOW_BYTES_BEFORE: u32 = 64 << 10;

/// What the receiving end is made with.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who vouches for backend and sensors.
    pub authority: Arc<CertificateAuthority>,
    /// Most connections at a time; further ones are refused and counted.
    pub connections_max: usize,
    /// Most bytes of batches that are being received or committed, over all connections; at least 16 MiB.
    pub intake_bytes_max: usize,
    /// A silent connection is dropped after this long.
    pub idle_timeout_ms: u32,
    /// How long a handshake, an enrolment or a pause within a batch may take.
    pub step_timeout_ms: u64,
    /// Lifetime of the certificates of sensors.
    pub certificate_lifetime: Duration,
    /// How long after its end a certificate can still be renewed: a sensor that was off for longer needs a code.
    pub renewal_grace: Duration,
    /// How often is asked who was revoked.
    pub revocation_look: Duration,
    /// Wrong codes from one source address within ten minutes, after which it must wait.
    pub wrong_codes_max: u32,
    /// Wrong codes from all addresses together within ten minutes, after which everybody must wait.
    pub wrong_codes_total_max: u32,
}

impl ServeOptions {
    /// With the usual bounds.
    #[must_use]
    pub const fn new(listen: SocketAddr, authority: Arc<CertificateAuthority>) -> Self {
        Self {
            listen,
            authority,
            connections_max: 4096,
            intake_bytes_max: 256 << 20,
            idle_timeout_ms: 30_000,
            step_timeout_ms: 30_000,
            certificate_lifetime: Duration::from_hours(30 * 24),
            renewal_grace: Duration::from_hours(90 * 24),
            revocation_look: Duration::from_secs(1),
            wrong_codes_max: 5,
            wrong_codes_total_max: 1000,
        }
    }
}

/// Why the receiving end cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be listened on. Remedy: another address or port, or stop who has it.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Which address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The authority. Remedy: see [`AuthorityError`].
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Keys and certificates do not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A bound is too small to let any batch through.
    #[error("intake_bytes_max is {0}, less than one batch of {BATCH_BYTES_MAX} bytes")]
    IntakeBytes(usize),
}

/// What all connections share.
struct Backend<I> {
    intake: Arc<I>,
    options: ServeOptions,
    totals: Totals,
    connections: Connections,
    crowd: Arc<Crowd>,
    wrong_codes: WrongCodes,
    /// One permit a KiB of batch.
    intake_bytes: Arc<Semaphore>,
    started: Instant,
}

impl<I> Backend<I> {
    const fn step_timeout(&self) -> Duration {
        Duration::from_millis(self.options.step_timeout_ms)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Receives until `shutdown` resolves; then closes all connections and gives what was done. `ready` is called
/// with the address once sensors can connect.
///
/// # Errors
///
/// When it cannot start. Whatever a peer does is counted and logged, never an error here.
pub async fn serve<I: Intake>(
    options: ServeOptions,
    intake: Arc<I>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<ServeTotals, ServeError> {
    if options.intake_bytes_max < BATCH_BYTES_MAX {
        return Err(ServeError::IntakeBytes(options.intake_bytes_max));
    }
    let listen = options.listen;
    let listen_error = |source| ServeError::Listen { listen, source };
    let endpoint = endpoint(&options)?;
    ready(endpoint.local_addr().map_err(listen_error)?);
    let permits = options.intake_bytes_max / 1024;
    let backend = Arc::new(Backend {
        intake,
        totals: Totals::default(),
        connections: Connections::default(),
        crowd: Arc::default(),
        wrong_codes: WrongCodes::new(options.wrong_codes_max, options.wrong_codes_total_max),
        intake_bytes: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
        started: Instant::now(),
        options,
    });
    let mut shutdown = std::pin::pin!(shutdown);
    let mut revocations = std::pin::pin!(watch_revocations(&backend));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = tasks.join_next() => {}
            never = &mut revocations => match never {},
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                accept(&backend, incoming, &mut tasks);
            }
        }
    }
    endpoint.close(Close::Shutdown.code(), Close::Shutdown.reason().as_bytes());
    // What has arrived whole is still committed, so that it need not come again.
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_GRACE, ended).await.is_err() {
        tracing::warn!("connections ended by force: the store takes too long");
    }
    tasks.shutdown().await;
    if timeout(SHUTDOWN_GRACE, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some sensors were not told of the end in time");
    }
    Ok(backend.totals.snapshot())
}

/// Closes the connections of sensors that were revoked meanwhile, over and over.
async fn watch_revocations<I: Intake>(backend: &Backend<I>) -> Infallible {
    let mut looks = interval(backend.options.revocation_look.max(Duration::from_millis(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match backend.intake.revoked().await {
            Ok(revoked) => {
                let closed = backend.connections.close(&revoked);
                backend.totals.connections_revoked.add(closed);
            }
            // Whoever delivers is asked for with each group of batches, too, and refused when there is no answer.
            Err(error) => tracing::debug!(%error, "it is not known who was revoked"),
        }
    }
}

fn endpoint(options: &ServeOptions) -> Result<Endpoint, ServeError> {
    let (certificate, key) = options.authority.server()?;
    let crypto = tls::server(&certificate, &key, options.authority.authority())?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    // Small until a certificate was shown; see `delivery`.
    config.transport_config(Arc::new(tls::transport(
        options.idle_timeout_ms,
        1,
        WINDOW_BYTES_BEFORE,
    )));
    let listen = options.listen;
    let listen_error = |source| ServeError::Listen { listen, source };
    let socket = UdpSocket::bind(listen).map_err(listen_error)?;
    // A packet of a connection that was open before a restart is answered with a stateless reset that its
    // sensor believes: it need not wait for the idle timeout.
    let mut endpoint_config =
        EndpointConfig::new(Arc::new(ResetKey(options.authority.reset_key())));
    endpoint_config.cid_generator(|| Box::new(RandomIds::default()));
    Endpoint::new(endpoint_config, Some(config), socket, Arc::new(TokioRuntime))
        .map_err(listen_error)
}

fn accept<I: Intake>(backend: &Arc<Backend<I>>, incoming: Incoming, tasks: &mut JoinSet<()>) {
    if tasks.len() >= backend.options.connections_max {
        backend.totals.connections_refused.add(1);
        incoming.refuse();
        return;
    }
    // Half full: somebody may be sending from forged addresses, so let each prove that it gets our answers.
    let half_full = tasks.len() * 2 >= backend.options.connections_max;
    if half_full && !incoming.remote_address_validated() && incoming.may_retry() {
        if let Err(error) = incoming.retry() {
            tracing::debug!(%error, "no retry");
        }
        return;
    }
    let Some(place) = backend.crowd.enter(incoming.remote_address().ip(), half_full) else {
        backend.totals.connections_refused.add(1);
        incoming.refuse();
        return;
    };
    backend.totals.connections.add(1);
    tasks.spawn(connection(Arc::clone(backend), incoming, place));
}

async fn connection<I: Intake>(backend: Arc<Backend<I>>, incoming: Incoming, _place: Place) {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(backend.step_timeout(), handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            backend.totals.handshakes_failed.add(1);
            tracing::warn!(%remote, %error, "handshake failed");
            return;
        }
        Err(_elapsed) => {
            backend.totals.handshakes_failed.add(1);
            tracing::info!(%remote, "handshake took too long");
            return;
        }
    };
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let certificate = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| chain.into_iter().next());
    let protocol = protocol.as_deref();
    if protocol == Some(ALPN_ENROLMENT) {
        return enrolment::run(&backend, &connection).await;
    }
    let Some(certificate) = certificate else {
        backend.totals.peers_without_certificate.add(1);
        tracing::warn!(%remote, "refused: no certificate");
        return Close::NoCertificate.close(&connection);
    };
    let certificate = match certificate::peer(&certificate) {
        Ok(certificate) => certificate,
        Err(error) => {
            backend.totals.peers_without_certificate.add(1);
            tracing::warn!(%remote, %error, "refused: a certificate that names no sensor");
            return Close::NoCertificate.close(&connection);
        }
    };
    match protocol {
        Some(ALPN_RENEWAL) => renewal::run(&backend, &connection, &certificate).await,
        Some(ALPN_DELIVERY) if certificate.validity.is_over(now_unix_s()) => {
            backend.totals.peers_expired.add(1);
            let (sensor, ended) = (&certificate.peer.sensor, utc(certificate.validity.ends_unix_s));
            tracing::warn!(%remote, %sensor, ended, "refused: expired certificate");
            Close::Expired.close(&connection);
        }
        Some(ALPN_DELIVERY) => delivery::run(&backend, &connection, certificate).await,
        _ => Close::Protocol.close(&connection),
    }
}

/// As quinn implements it for a library's key; here, because which library that is depends on features that other
/// crates of a build may turn on.
struct ResetKey(hmac::Key);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = hmac::sign(&self.0, data);
        signature_out.copy_from_slice(tag.as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_unspecified| quinn::crypto::CryptoError)
    }
}

/// Connection identifiers that are plain random numbers. quinn's usual ones carry a check under a key of each
/// process, by which a restarted backend would drop old packets unanswered.
#[derive(Debug, Default)]
struct RandomIds {
    /// Makes identifiers differ even without the system's random source.
    made: u64,
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let mut id = self.made.to_le_bytes();
        if aws_lc_rs::rand::fill(&mut id).is_err() {
            tracing::warn!("the system gives no random numbers");
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// What a connection may have on the way once its sensor is known: two of the longest batches less framing.
const WINDOW_BYTES_AFTER: VarInt = VarInt::from_u32(16 << 20);
/// Streams a sensor may have open: its hello and the batches in flight.
const STREAMS_AFTER: VarInt = VarInt::from_u32(33);
/// Streams a sensor may have open to tell of itself.
const HEALTH_STREAMS_AFTER: VarInt = VarInt::from_u32(1);
