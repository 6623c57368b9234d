//! A switch for a test that needs no kernel: it holds what it is told, and misbehaves where it is
//! asked to.

use dtn_openflow::{
    AggregateStats, Description, Features, FlowCommand, FlowMod, FlowStats, Frame, GroupCommand,
    GroupDesc, Instruction, Message, MeterCommand, MeterConfig, MeterFeatures, MultipartReply,
    MultipartRequest, Port, frame_length,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

/// What can be changed about a switch while it runs.
#[derive(Default)]
pub(crate) struct Manner {
    /// It says nothing any more.
    pub(crate) mute: AtomicBool,
    /// Rules that it has room for; 0 for any number.
    pub(crate) room: AtomicUsize,
    /// An answer in parts has no last one.
    pub(crate) endless: AtomicBool,
    /// How often it was asked for something that may be long.
    pub(crate) asked: AtomicUsize,
    /// How often it was asked how many rules it has.
    pub(crate) counted: AtomicUsize,
    /// What it holds.
    pub(crate) held: Mutex<Held>,
}

/// What a switch holds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) flows: Vec<FlowStats>,
    pub(crate) groups: BTreeMap<u32, GroupDesc>,
    pub(crate) meters: BTreeMap<u32, MeterConfig>,
}

/// A switch; gone when it is dropped.
pub(crate) struct Model {
    pub(crate) manner: Arc<Manner>,
    task: JoinHandle<()>,
}
impl Model {
    /// Whether its connection has ended.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }
}
impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a switch comes.
#[derive(Clone)]
pub(crate) struct Make {
    pub(crate) datapath_id: u64,
    /// Its ports' names, with numbers from 1.
    pub(crate) ports: Vec<String>,
    /// 0: it does not know what a meter is.
    pub(crate) max_meter: u32,
    /// Its tables.
    pub(crate) tables: u8,
    /// Whether it knows what a group is.
    pub(crate) groups: bool,
    /// Versions in its hello.
    pub(crate) versions: Vec<u8>,
}

impl Make {
    pub(crate) fn new(datapath_id: u64, ports: &[&str]) -> Self {
        Self {
            datapath_id,
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            max_meter: 1000,
            tables: 254,
            groups: true,
            versions: vec![4],
        }
    }
    /// Connects it.
    pub(crate) async fn connect(self, to: SocketAddr) -> Model {
        let manner = Arc::new(Manner::default());
        let stream = TcpStream::connect(to).await.unwrap();
        let task = tokio::spawn({
            let manner = manner.clone();
            async move { self.serve(stream, &manner).await }
        });
        Model { manner, task }
    }

    async fn serve(self, mut stream: TcpStream, manner: &Manner) {
        let hello = Message::Hello {
            versions: self.versions.clone(),
        };
        let mut out = Frame {
            xid: 0,
            message: hello,
        }
        .encode();
        loop {
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
            let mut head = [0; 8];
            // the controller may let it go at any time
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut bytes = head.to_vec();
            bytes.resize(frame_length(head).unwrap(), 0);
            if stream.read_exact(&mut bytes[8..]).await.is_err() {
                return;
            }
            if manner.mute.load(Ordering::Relaxed) {
                continue;
            }
            let frame = Frame::decode(&bytes).unwrap();
            for message in self.answer(frame.message, manner) {
                let xid = frame.xid;
                out.extend(Frame { xid, message }.encode());
            }
        }
    }

    fn answer(&self, message: Message, manner: &Manner) -> Vec<Message> {
        let mut held = manner.held.lock().unwrap();
        let refused = |kind, code| {
            vec![Message::Error {
                kind,
                code,
                data: Vec::new(),
            }]
        };
        match message {
            Message::EchoRequest(data) => vec![Message::EchoReply(data)],
            Message::FeaturesRequest => vec![Message::FeaturesReply(Features {
                datapath_id: self.datapath_id,
                n_tables: self.tables,
                ..Features::default()
            })],
            Message::BarrierRequest => vec![Message::BarrierReply],
            Message::MultipartRequest(MultipartRequest::MeterFeatures) if self.max_meter == 0 => {
                refused(1, 2)
            }
            Message::MultipartRequest(MultipartRequest::GroupDesc) if !self.groups => refused(1, 2),
            Message::MultipartRequest(request) => {
                manner.asked.fetch_add(1, Ordering::Relaxed);
                if matches!(request, MultipartRequest::Aggregate(_)) {
                    manner.counted.fetch_add(1, Ordering::Relaxed);
                }
                let body = self.told(&request, &held);
                if manner.endless.load(Ordering::Relaxed) {
                    // long, and quickly written and read: what counts is its length
                    let filler = Instruction::Other {
                        kind: 0xffff,
                        body: vec![0; 60_000],
                    };
                    let body = MultipartReply::Flow(vec![FlowStats {
                        instructions: vec![filler],
                        ..FlowStats::default()
                    }]);
                    let part = Message::MultipartReply { more: true, body };
                    return vec![part; 1500];
                }
                vec![Message::MultipartReply { more: false, body }]
            }
            Message::FlowMod(change) => {
                let room = manner.room.load(Ordering::Relaxed);
                let full = room > 0 && held.flows.len() >= room;
                if change.command == FlowCommand::Add && full {
                    return refused(5, 1);
                }
                apply(&mut held.flows, change);
                Vec::new()
            }
            Message::GroupMod(change) => {
                held.groups.remove(&change.group_id);
                if change.command != GroupCommand::Delete {
                    let group = GroupDesc {
                        kind: change.kind,
                        group_id: change.group_id,
                        buckets: change.buckets,
                    };
                    held.groups.insert(change.group_id, group);
                }
                Vec::new()
            }
            Message::MeterMod(change) => {
                let known = held.meters.remove(&change.meter_id).is_some();
                if change.command == MeterCommand::Delete {
                    return Vec::new();
                }
                let meter = MeterConfig {
                    flags: change.flags,
                    meter_id: change.meter_id,
                    bands: change.bands,
                };
                held.meters.insert(change.meter_id, meter);
                match (known, change.command) {
                    (true, MeterCommand::Add) => refused(12, 1),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn told(&self, request: &MultipartRequest, held: &Held) -> MultipartReply {
        match request {
            MultipartRequest::Flow(_) => MultipartReply::Flow(held.flows.clone()),
            MultipartRequest::Aggregate(of) => {
                let is = |flow: &&FlowStats| flow.cookie & of.cookie_mask == of.cookie;
                MultipartReply::Aggregate(AggregateStats {
                    flow_count: held.flows.iter().filter(is).count() as u32,
                    ..AggregateStats::default()
                })
            }
            MultipartRequest::GroupDesc => {
                MultipartReply::GroupDesc(held.groups.values().cloned().collect())
            }
            MultipartRequest::MeterConfig { .. } => {
                MultipartReply::MeterConfig(held.meters.values().cloned().collect())
            }
            MultipartRequest::Meter { .. } => MultipartReply::Meter(Vec::new()),
            MultipartRequest::MeterFeatures => MultipartReply::MeterFeatures(MeterFeatures {
                max_meter: self.max_meter,
                ..MeterFeatures::default()
            }),
            MultipartRequest::PortDesc => {
                let port = |(name, port_no): (&String, u32)| Port {
                    port_no,
                    name: name.clone(),
                    ..Port::default()
                };
                MultipartReply::PortDesc(self.ports.iter().zip(1..).map(port).collect())
            }
            _ => MultipartReply::Desc(Description::default()),
        }
    }
}

fn apply(flows: &mut Vec<FlowStats>, change: FlowMod) {
    let same = |flow: &FlowStats| {
        flow.table_id == change.table_id
            && flow.priority == change.priority
            && flow.matches == change.matches
            && flow.cookie & change.cookie_mask == change.cookie & change.cookie_mask
    };
    flows.retain(|flow| !same(flow));
    if change.command == FlowCommand::Add {
        flows.push(FlowStats {
            table_id: change.table_id,
            priority: change.priority,
            cookie: change.cookie,
            matches: change.matches,
            instructions: change.instructions,
            ..FlowStats::default()
        });
    }
}
