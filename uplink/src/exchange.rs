//! Takes one message; gives the one that answers it, over a connection of its own to one of the backend's addresses.
//! Never keeps the connection, and never waits without a bound.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, ConnectionError, Endpoint};
use thiserror::Error;
use tokio::time::timeout;

use crate::tls::{self, BACKEND_NAME, explain, refused_certificate};
use crate::wire::{Close, ENROLMENT_BYTES_MAX};

/// For the connection, and again for the answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT_MS: u32 = 15_000;
const GOODBYE: Duration = Duration::from_secs(1);
/// What the backend may send before it is read; more than the longest answer.
const WINDOW_BYTES: u32 = 64 << 10;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    /// Whoever answers there is not who was expected.
    #[error("{0}")]
    NotTheBackend(String),
    /// The backend ended the connection in its own words.
    #[error("{0}")]
    Closed(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
}

/// Tries each address that the name has, until one answers in any way.
pub(crate) async fn exchange(
    address: &str,
    config: &ClientConfig,
    message: &[u8],
) -> Result<Vec<u8>, ExchangeError> {
    let unreachable = |error: std::io::Error| ExchangeError::Unreachable(error.to_string());
    let addresses = tokio::net::lookup_host(address).await.map_err(unreachable)?;
    let mut last = ExchangeError::Unreachable("the name has no address".to_owned());
    for address in addresses {
        match exchange_at(address, config.clone(), message).await {
            Err(error @ ExchangeError::Unreachable(_)) => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

async fn exchange_at(
    address: SocketAddr,
    mut config: ClientConfig,
    message: &[u8],
) -> Result<Vec<u8>, ExchangeError> {
    let unreachable = |error: String| ExchangeError::Unreachable(error);
    config.transport_config(Arc::new(tls::transport(IDLE_TIMEOUT_MS, 0, WINDOW_BYTES)));
    let endpoint =
        Endpoint::client(any_address(address)).map_err(|error| unreachable(error.to_string()))?;
    let connecting = endpoint
        .connect_with(config, address, BACKEND_NAME)
        .map_err(|error| unreachable(error.to_string()))?;
    let connection = match timeout(STEP_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            say_goodbye(&endpoint).await;
            return Err(judge(&error));
        }
        Err(_elapsed) => return Err(late()),
    };
    let asked = async {
        let (mut stream, mut answer) = connection.open_bi().await?;
        // An error on a stream of an open connection is the other side's refusal to read it; the answer tells more.
        let sent = stream.write_all(message).await.is_ok() && stream.finish().is_ok();
        match answer.read_to_end(ENROLMENT_BYTES_MAX).await {
            Ok(bytes) if sent => Ok(Ok(bytes)),
            Ok(_) => Ok(Err("it did not take the whole message".to_owned())),
            Err(error) => match connection.close_reason() {
                Some(closed) => Err(closed),
                None => Ok(Err(error.to_string())),
            },
        }
    };
    let answered = timeout(STEP_TIMEOUT, asked).await;
    Close::Done.close(&connection);
    say_goodbye(&endpoint).await;
    match answered {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Ok(Err(reason))) => Err(unreachable(reason)),
        Ok(Err(error)) => Err(judge(&error)),
        Err(_elapsed) => Err(late()),
    }
}

fn late() -> ExchangeError {
    ExchangeError::Unreachable(format!("no answer within {} s", STEP_TIMEOUT.as_secs()))
}

fn judge(error: &ConnectionError) -> ExchangeError {
    let text = explain(error).unwrap_or_else(|| error.to_string());
    match error {
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            ExchangeError::Closed(String::from_utf8_lossy(&close.reason).into_owned())
        }
        error if refused_certificate(error) => ExchangeError::NotTheBackend(text),
        ConnectionError::TimedOut => late(),
        _ => ExchangeError::Unreachable(text),
    }
}

/// Lets the other side know that this one has ended; bounded, because it may be gone.
async fn say_goodbye(endpoint: &Endpoint) {
    if timeout(GOODBYE, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("the backend did not notice the end of the connection in time");
    }
}

/// The wildcard address of the same family.
pub(crate) fn any_address(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
