//! Where switches connect, over TCP or TLS, until each is known or has been sent away.

use super::{
    Shared, Tls,
    failure::{Failure, unexpected},
    frames, look,
    session::Session,
    switches::Joining,
};
use crate::auth::switch_of;
use dtn_api::Name;
use dtn_openflow::{Features, Frame, Message, MultipartReply, MultipartRequest, VERSION};
use rustls::ServerConfig;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{error::Elapsed, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// Connections at once: far more than a site has switches.
const CONNECTIONS: usize = 512;
/// Longest time for the TLS handshake, and again for the one of OpenFlow.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that may be asked for all that a switch has at once, before they are known: on a
/// plain network anybody can say that it is a switch, and answer with as much as fits in ten seconds.
const UNPROVEN: usize = 16;
/// Pause after an accept that failed, as it does when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a packet that no rule has met and that a switch sends along; rules of ours that send
/// packets here say their own measure.
const MISS_SEND_LEN: u16 = 128;

pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let unproven = Arc::new(Semaphore::new(UNPROVEN));
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((slot, listener.accept().await))
        };
        let (slot, accepted) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => return,
            },
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("a switch's connection was not accepted: {e}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (tls, shared, end) = (tls.clone(), shared.clone(), stop.child_token());
        let unproven = unproven.clone();
        // no handshake is waited for here: a slow one would keep everybody out
        tokio::spawn(async move {
            // barriers are small and waited for
            if let Err(e) = stream.set_nodelay(true) {
                tracing::debug!("{peer}: {e}");
            }
            match tls {
                None => connection(stream, peer, &shared, end, Proof::None(&unproven)).await,
                Some(Tls { server, domain }) => match handshake(server, stream).await {
                    Ok(Ok(stream)) => {
                        let chain = stream.get_ref().1.peer_certificates();
                        let own = chain.and_then(|chain| chain.first());
                        match own.and_then(|own| Some((switch_of(own, &domain)?, own))) {
                            Some((name, own)) => {
                                shared.came_with(&name, dtn_api::client::fingerprint(own));
                                connection(stream, peer, &shared, end, Proof::Of(name)).await;
                            }
                            None => tracing::warn!(
                                "what connected from {peer} has no certificate of a switch of \
                                 {domain}"
                            ),
                        }
                    }
                    Ok(Err(e)) => tracing::warn!("TLS with the switch at {peer} failed: {e}"),
                    Err(_) => tracing::warn!("TLS with the switch at {peer} took too long"),
                },
            }
            drop(slot);
        });
    }
}

/// With the certificate that the domain has now.
async fn handshake(
    server: watch::Receiver<Arc<ServerConfig>>,
    stream: TcpStream,
) -> Result<io::Result<TlsStream<TcpStream>>, Elapsed> {
    let server = server.borrow().clone();
    timeout(HANDSHAKE, TlsAcceptor::from(server).accept(stream)).await
}

/// What a connection has shown of who it is.
enum Proof<'a> {
    /// Nothing: the network is the switches' own. So many are worked on at once.
    None(&'a Semaphore),
    /// That it is this switch.
    Of(Name),
}

async fn connection<S>(
    mut stream: S,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    end: CancellationToken,
    proof: Proof<'_>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match timeout(HANDSHAKE, greet(&mut stream)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => {
            return tracing::warn!(
                "what connected from {peer} is not a switch of OpenFlow 1.3: {why}"
            );
        }
        Err(_) => return tracing::warn!("what connected from {peer} said no hello"),
    }
    let (session, queues) = Session::new(end);
    let (read, write) = tokio::io::split(stream);
    let heard = |heard| shared.heard(&session, heard);
    let served = session.serve(read, write, queues, heard);
    let lived = async {
        match introduced(&session, peer, shared, proof).await {
            Some(name) => {
                session.until_end().await;
                Some(name)
            }
            None => {
                session.close("it was sent away");
                None
            }
        }
    };
    let (why, name) = tokio::join!(served, lived);
    if let Some(name) = name {
        shared.left(&name, &session, &why);
    }
}

/// Whose connection this is, once it is known and looked through; `None` when it is to be sent away.
async fn introduced(
    session: &Arc<Session>,
    peer: SocketAddr,
    shared: &Shared,
    proof: Proof<'_>,
) -> Option<Name> {
    let features = in_time(features(session), None, peer, shared).await?;
    let (proven, unproven) = match &proof {
        Proof::Of(name) => (Some(name), None),
        Proof::None(unproven) => (None, Some(unproven)),
    };
    let name = shared.judge(&features, proven, peer)?;
    let _turn = match unproven {
        None => None,
        Some(unproven) => tokio::select! {
            turn = unproven.acquire() => Some(turn.ok()?),
            () = session.until_end() => return None,
        },
    };
    let id = Some(features.datapath_id);
    let joining = in_time(introduce(session, name, &features), id, peer, shared).await?;
    shared.join(joining, session.clone(), peer).await
}

/// What is asked of a switch before it is known, within [`HANDSHAKE`].
async fn in_time<T>(
    asked: impl Future<Output = Result<T, Failure>>,
    id: Option<u64>,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<T> {
    match timeout(HANDSHAKE, asked).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(failure)) => {
            let why = format!(
                "what connected from {} does not answer as a switch must: {failure}",
                peer.ip()
            );
            match failure {
                // a switch that lacks something: its owner has to know
                Failure::Refused { .. } => shared.refuse(peer, id, why),
                _ => tracing::warn!("{why}"),
            }
        }
        Err(_) => {
            let why = format!(
                "what connected from {} did not say who it is and what it has within {} s",
                peer.ip(),
                HANDSHAKE.as_secs()
            );
            shared.refuse(peer, id, why);
        }
    }
    None
}

/// Hello both ways (OpenFlow 1.3.5 §6.3.1). Only 1.3 is spoken; who cannot is told so.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), String> {
    let words = |e: io::Error| format!("sending: {e}");
    let hello = Message::Hello {
        versions: vec![VERSION],
    };
    let hello = Frame {
        xid: 0,
        message: hello,
    };
    stream.write_all(&hello.encode()).await.map_err(words)?;
    let first = frames::next(stream, &mut Vec::new()).await;
    let Frame { xid, message } = first.map_err(|end| end.words())?;
    match message {
        Message::Hello { versions } if versions.contains(&VERSION) => Ok(()),
        Message::Hello { versions } => {
            let refused = Message::Error {
                kind: 0,
                code: 0,
                data: b"this controller speaks OpenFlow 1.3 alone".to_vec(),
            };
            let refused = Frame {
                xid,
                message: refused,
            };
            stream.write_all(&refused.encode()).await.map_err(words)?;
            stream.shutdown().await.map_err(words)?;
            Err(format!(
                "it speaks the versions {versions:?} of the wire, and 4 is needed: \
                 set protocols=OpenFlow13 on it"
            ))
        }
        other => Err(format!("it began with {other:?}")
            .chars()
            .take(120)
            .collect()),
    }
}

/// Asks a switch who it is.
async fn features(session: &Session) -> Result<Features, Failure> {
    let asked = "a request for its features";
    match session.ask(Message::FeaturesRequest, asked).await? {
        Message::FeaturesReply(features) => Ok(features),
        other => Err(unexpected(asked, &other)),
    }
}

/// Asks a switch what it has and can do.
async fn introduce(session: &Session, name: Name, features: &Features) -> Result<Joining, Failure> {
    let config = Message::SetConfig {
        flags: 0,
        miss_send_len: MISS_SEND_LEN,
    };
    for (_, cause) in session.apply([config], "its configuration").await? {
        tracing::warn!(
            "the switch {:016x} does not take its configuration: {cause}",
            features.datapath_id
        );
    }
    let mut description = String::new();
    let asked = "a request for its description";
    for part in session.multipart(MultipartRequest::Desc, asked).await? {
        if let MultipartReply::Desc(told) = part {
            description = format!("{} {}", told.hardware, told.software);
        }
    }
    let asked = "a request for its ports";
    for part in session.multipart(MultipartRequest::PortDesc, asked).await? {
        if let MultipartReply::PortDesc(ports) = part {
            session.know_ports(&ports);
        }
    }
    let asked = "a request for its meters' limits";
    let mut max_meter = 0;
    match session
        .multipart(MultipartRequest::MeterFeatures, asked)
        .await
    {
        Ok(parts) => {
            for part in parts {
                if let MultipartReply::MeterFeatures(told) = part {
                    max_meter = told.max_meter;
                }
            }
        }
        // a switch without meters does not know the question
        Err(Failure::Refused { cause, .. }) => {
            tracing::warn!(
                "the switch {:016x} has no meters: {cause}",
                features.datapath_id
            );
        }
        Err(other) => return Err(other),
    }
    // one that cannot do this in time would keep the others waiting at every look
    look::read(session, max_meter).await?;
    Ok(Joining {
        name,
        datapath_id: features.datapath_id,
        tables: features.n_tables,
        max_meter,
        description,
    })
}
