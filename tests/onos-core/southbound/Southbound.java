package southbound;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.onlab.packet.ChassisId;
import org.onosproject.core.ApplicationId;
import org.onosproject.core.CoreService;
import org.onosproject.net.AnnotationKeys;
import org.onosproject.net.DefaultAnnotations;
import org.onosproject.net.DeviceId;
import org.onosproject.net.MastershipRole;
import org.onosproject.net.Port;
import org.onosproject.net.PortNumber;
import org.onosproject.net.device.DefaultDeviceDescription;
import org.onosproject.net.device.DefaultPortDescription;
import org.onosproject.net.device.DeviceProvider;
import org.onosproject.net.device.DeviceProviderRegistry;
import org.onosproject.net.device.DeviceProviderService;
import org.onosproject.net.device.PortDescription;
import org.onosproject.net.flow.CompletedBatchOperation;
import org.onosproject.net.flow.DefaultFlowEntry;
import org.onosproject.net.flow.FlowEntry;
import org.onosproject.net.flow.FlowRule;
import org.onosproject.net.flow.FlowRuleProvider;
import org.onosproject.net.flow.FlowRuleProviderRegistry;
import org.onosproject.net.flow.FlowRuleProviderService;
import org.onosproject.net.flow.IndexTableId;
import org.onosproject.net.flow.oldbatch.FlowRuleBatchEntry;
import org.onosproject.net.flow.oldbatch.FlowRuleBatchOperation;
import org.onosproject.net.meter.Band;
import org.onosproject.net.meter.DefaultBand;
import org.onosproject.net.meter.DefaultMeter;
import org.onosproject.net.meter.DefaultMeterFeatures;
import org.onosproject.net.meter.Meter;
import org.onosproject.net.meter.MeterFailReason;
import org.onosproject.net.meter.MeterId;
import org.onosproject.net.meter.MeterOperation;
import org.onosproject.net.meter.MeterOperations;
import org.onosproject.net.meter.MeterProvider;
import org.onosproject.net.meter.MeterProviderRegistry;
import org.onosproject.net.meter.MeterProviderService;
import org.onosproject.net.meter.MeterState;
import org.onosproject.net.provider.AbstractProvider;
import org.onosproject.net.provider.ProviderId;
import org.onosproject.openflow.controller.Dpid;
import org.onosproject.openflow.controller.OpenFlowController;
import org.onosproject.openflow.controller.OpenFlowEventListener;
import org.onosproject.openflow.controller.OpenFlowSwitch;
import org.onosproject.openflow.controller.OpenFlowSwitchListener;
import org.onosproject.openflow.controller.RoleState;
import org.osgi.framework.BundleContext;
import org.osgi.framework.ServiceReference;
import org.projectfloodlight.openflow.protocol.OFErrorMsg;
import org.projectfloodlight.openflow.protocol.OFFactory;
import org.projectfloodlight.openflow.protocol.OFFlowMod;
import org.projectfloodlight.openflow.protocol.OFFlowStatsEntry;
import org.projectfloodlight.openflow.protocol.OFFlowStatsReply;
import org.projectfloodlight.openflow.protocol.OFMessage;
import org.projectfloodlight.openflow.protocol.OFMeterBandStats;
import org.projectfloodlight.openflow.protocol.OFMeterFeatures;
import org.projectfloodlight.openflow.protocol.OFMeterFlags;
import org.projectfloodlight.openflow.protocol.OFMeterMod;
import org.projectfloodlight.openflow.protocol.OFMeterModCommand;
import org.projectfloodlight.openflow.protocol.OFMeterStats;
import org.projectfloodlight.openflow.protocol.OFMeterStatsReply;
import org.projectfloodlight.openflow.protocol.OFPortConfig;
import org.projectfloodlight.openflow.protocol.OFPortDesc;
import org.projectfloodlight.openflow.protocol.OFPortState;
import org.projectfloodlight.openflow.protocol.OFPortStatus;
import org.projectfloodlight.openflow.types.OFBufferId;
import org.projectfloodlight.openflow.types.OFGroup;
import org.projectfloodlight.openflow.types.OFPort;
import org.projectfloodlight.openflow.types.TableId;
import org.projectfloodlight.openflow.types.U64;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The providers of devices, rules and meters, over the OpenFlow channel that is ONOS's own. */
final class Southbound {
    private static final Logger LOG = LoggerFactory.getLogger("southbound");
    private static final ProviderId PROVIDER = new ProviderId("of", "southbound");
    /** Seconds between two readings of a switch; ONOS's own providers take 5 for rules and 10 for meters. */
    private static final int POLL = 2;
    private static final long ALL_METERS = 0xffffffffL;

    private final BundleContext context;
    private final ScheduledExecutorService executor = Executors.newSingleThreadScheduledExecutor();
    private final Map<DeviceId, Map<Long, FlowRule>> rules = new ConcurrentHashMap<>();
    private OpenFlowController controller;
    private ApplicationId core;
    private DeviceProviderService deviceService;
    private FlowRuleProviderService ruleService;
    private MeterProviderService meterService;

    Southbound(BundleContext context) {
        this.context = context;
    }

    void start() {
        executor.schedule(this::begin, 1, TimeUnit.SECONDS);
    }

    void stop() {
        executor.shutdownNow();
    }

    private <T> T service(Class<T> kind) {
        ServiceReference<T> reference = context.getServiceReference(kind);
        return reference == null ? null : context.getService(reference);
    }

    /** Registers with the core once all of it is there. */
    private void begin() {
        try {
            OpenFlowController channel = service(OpenFlowController.class);
            DeviceProviderRegistry ofDevices = service(DeviceProviderRegistry.class);
            FlowRuleProviderRegistry ofRules = service(FlowRuleProviderRegistry.class);
            MeterProviderRegistry ofMeters = service(MeterProviderRegistry.class);
            CoreService apps = service(CoreService.class);
            core = apps == null ? null : apps.getAppId(CoreService.CORE_APP_NAME);
            if (core == null || channel == null || ofDevices == null || ofRules == null || ofMeters == null) {
                start();
                return;
            }
            controller = channel;
            deviceService = ofDevices.register(new Devices());
            ruleService = ofRules.register(new Rules());
            meterService = ofMeters.register(new OfMeters());
            Events events = new Events();
            controller.addListener(events);
            controller.addEventListener(events);
            controller.getSwitches().forEach(s -> events.switchAdded(s.getDpid()));
            executor.scheduleAtFixedRate(this::poll, POLL, POLL, TimeUnit.SECONDS);
            LOG.info("started");
        } catch (RuntimeException e) {
            LOG.error("starting", e);
            start();
        }
    }

    private static DeviceId device(Dpid dpid) {
        return DeviceId.deviceId(Dpid.uri(dpid));
    }

    private OpenFlowSwitch at(DeviceId device) {
        return controller.getSwitch(Dpid.dpid(device.uri()));
    }

    private void poll() {
        try {
            for (OpenFlowSwitch s : controller.getSwitches()) {
                OFFactory of = s.factory();
                s.sendMsg(of.buildFlowStatsRequest().setXid(of.nextXid()).setTableId(TableId.ALL)
                        .setMatch(of.matchWildcardAll()).setOutPort(OFPort.ANY).setOutGroup(OFGroup.ANY).build());
                s.sendMsg(of.buildMeterStatsRequest().setXid(of.nextXid()).setMeterId(ALL_METERS).build());
            }
        } catch (RuntimeException e) {
            // the next reading may do better; an exception would be the last of them
            LOG.warn("reading the switches", e);
        }
    }

    private final class Events implements OpenFlowSwitchListener, OpenFlowEventListener {
        private final Set<Dpid> cleared = ConcurrentHashMap.newKeySet();

        @Override
        public void switchAdded(Dpid dpid) {
            OpenFlowSwitch s = controller.getSwitch(dpid);
            if (s == null) {
                return;
            }
            features(device(dpid), s.getMeterFeatures());
            DefaultAnnotations annotations = DefaultAnnotations.builder()
                    .set("protocol", s.factory().getVersion().toString()).set("channelId", s.channelId()).build();
            deviceService.deviceConnected(device(dpid), new DefaultDeviceDescription(Dpid.uri(dpid), s.deviceType(),
                    s.manufacturerDescription(), s.hardwareDescription(), s.softwareDescription(), s.serialNumber(),
                    new ChassisId(dpid.value()), annotations));
            ports(dpid, s);
        }

        private void ports(Dpid dpid, OpenFlowSwitch s) {
            List<PortDescription> all = new ArrayList<>();
            for (OFPortDesc port : s.getPorts()) {
                boolean up = !port.getState().contains(OFPortState.LINK_DOWN)
                        && !port.getConfig().contains(OFPortConfig.PORT_DOWN);
                long number = Integer.toUnsignedLong(port.getPortNo().getPortNumber());
                all.add(DefaultPortDescription.builder().withPortNumber(PortNumber.portNumber(number)).isEnabled(up)
                        .type(Port.Type.COPPER).portSpeed(port.getCurrSpeed() / 1000)
                        .annotations(DefaultAnnotations.builder().set(AnnotationKeys.PORT_NAME, port.getName()).build())
                        .build());
            }
            deviceService.updatePorts(device(dpid), all);
        }

        /** The stores are in memory: what a switch holds from before is nobody's. */
        private void clear(OpenFlowSwitch s) {
            OFFactory of = s.factory();
            s.sendMsg(of.buildFlowDelete().setXid(of.nextXid()).setTableId(TableId.ALL).setMatch(of.matchWildcardAll())
                    .setOutPort(OFPort.ANY).setOutGroup(OFGroup.ANY).setBufferId(OFBufferId.NO_BUFFER).build());
            s.sendMsg(of.buildMeterMod().setXid(of.nextXid()).setCommand(OFMeterModCommand.DELETE)
                    .setMeterId(ALL_METERS).setFlags(EnumSet.of(OFMeterFlags.KBPS)).setMeters(List.of()).build());
        }

        @Override
        public void switchRemoved(Dpid dpid) {
            meterService.deleteMeterFeatures(device(dpid));
            deviceService.deviceDisconnected(device(dpid));
        }

        @Override
        public void switchChanged(Dpid dpid) {
            portChanged(dpid, null);
        }

        @Override
        public void portChanged(Dpid dpid, OFPortStatus status) {
            OpenFlowSwitch s = controller.getSwitch(dpid);
            if (s != null) {
                ports(dpid, s);
            }
        }

        @Override
        public void receivedRoleReply(Dpid dpid, RoleState asked, RoleState said) {
            // a switch takes orders from its master only
            if (said == RoleState.MASTER && cleared.add(dpid)) {
                clear(controller.getSwitch(dpid));
            }
            deviceService.receivedRoleReply(device(dpid), role(asked), role(said));
        }

        private MastershipRole role(RoleState state) {
            if (state == null) {
                return null;
            }
            return state == RoleState.MASTER ? MastershipRole.MASTER : MastershipRole.STANDBY;
        }

        @Override
        public void handleMessage(Dpid dpid, OFMessage message) {
            try {
                if (message instanceof OFFlowStatsReply) {
                    flows(device(dpid), (OFFlowStatsReply) message);
                } else if (message instanceof OFMeterStatsReply) {
                    counts(device(dpid), (OFMeterStatsReply) message);
                } else if (message instanceof OFErrorMsg) {
                    LOG.warn("{} answers {}", dpid, message);
                }
            } catch (RuntimeException e) {
                LOG.warn("hearing {}", dpid, e);
            }
        }

        private void flows(DeviceId device, OFFlowStatsReply reply) {
            Map<Long, FlowRule> known = rules.getOrDefault(device, Map.of());
            List<FlowEntry> told = new ArrayList<>();
            for (OFFlowStatsEntry entry : reply.getEntries()) {
                FlowRule rule = known.get(entry.getCookie().getValue());
                if (rule != null) {
                    told.add(new DefaultFlowEntry(rule, FlowEntry.FlowEntryState.ADDED, entry.getDurationSec(),
                            entry.getPacketCount().getValue(), entry.getByteCount().getValue()));
                }
            }
            ruleService.pushFlowMetrics(device, told);
        }

        /** All that the switch has, also what is not known here: the core then has it removed. */
        private void counts(DeviceId device, OFMeterStatsReply reply) {
            List<Meter> told = new ArrayList<>();
            for (OFMeterStats entry : reply.getEntries()) {
                List<Band> bands = new ArrayList<>();
                for (OFMeterBandStats band : entry.getBandStats()) {
                    DefaultBand counted = (DefaultBand) DefaultBand.builder().ofType(Band.Type.DROP).build();
                    counted.setBytes(band.getByteBandCount().getValue());
                    counted.setPackets(band.getPacketBandCount().getValue());
                    bands.add(counted);
                }
                DefaultMeter counted = (DefaultMeter) DefaultMeter.builder().forDevice(device).fromApp(core)
                        .withId(MeterId.meterId(entry.getMeterId())).withBands(bands).build();
                counted.setState(MeterState.ADDED);
                counted.setLife(entry.getDurationSec());
                counted.setProcessedBytes(entry.getByteInCount().getValue());
                counted.setProcessedPackets(entry.getPacketInCount().getValue());
                counted.setReferenceCount(entry.getFlowCount());
                told.add(counted);
            }
            meterService.pushMeterMetrics(device, told);
        }

        private void features(DeviceId device, OFMeterFeatures told) {
            if (told == null) {
                meterService.pushMeterFeatures(device, DefaultMeterFeatures.noMeterFeatures(device));
                return;
            }
            // the core has use for the number alone
            meterService.pushMeterFeatures(device,
                    DefaultMeterFeatures.builder().forDevice(device).withMaxMeters(told.getMaxMeter())
                            .withMaxBands(told.getMaxBands()).withMaxColors(told.getMaxColor())
                            .withBandTypes(Set.of(Band.Type.DROP)).withUnits(Set.of(Meter.Unit.KB_PER_SEC))
                            .hasBurst(true).hasStats(true).build());
        }
    }

    private final class Devices extends AbstractProvider implements DeviceProvider {
        Devices() {
            super(PROVIDER);
        }

        @Override
        public void triggerProbe(DeviceId device) {
            // the channel asks by itself
        }

        @Override
        public void roleChanged(DeviceId device, MastershipRole role) {
            controller.setRole(Dpid.dpid(device.uri()),
                    role == MastershipRole.MASTER ? RoleState.MASTER : RoleState.SLAVE);
        }

        @Override
        public boolean isReachable(DeviceId device) {
            OpenFlowSwitch s = at(device);
            return s != null && s.isConnected();
        }

        @Override
        public boolean isAvailable(DeviceId device) {
            return isReachable(device);
        }

        @Override
        public void changePortState(DeviceId device, PortNumber port, boolean enable) {
            throw new UnsupportedOperationException("port " + port + " of " + device);
        }
    }

    private final class Rules extends AbstractProvider implements FlowRuleProvider {
        Rules() {
            super(PROVIDER);
        }

        @Override
        public void applyFlowRule(FlowRule... wanted) {
            for (FlowRule rule : wanted) {
                send(rule, true);
            }
        }

        @Override
        public void removeFlowRule(FlowRule... unwanted) {
            for (FlowRule rule : unwanted) {
                send(rule, false);
            }
        }

        @Override
        public void executeBatch(FlowRuleBatchOperation batch) {
            Set<FlowRule> failed = new HashSet<>();
            for (FlowRuleBatchEntry entry : batch.getOperations()) {
                try {
                    send(entry.target(), entry.operator() != FlowRuleBatchEntry.FlowRuleOperation.REMOVE);
                } catch (RuntimeException e) {
                    LOG.warn("sending {}", entry.target(), e);
                    failed.add(entry.target());
                }
            }
            ruleService.batchOperationCompleted(batch.id(),
                    new CompletedBatchOperation(failed.isEmpty(), failed, batch.deviceId()));
        }

        private void send(FlowRule rule, boolean add) {
            OpenFlowSwitch s = at(rule.deviceId());
            if (s == null) {
                throw new IllegalStateException("no switch " + rule.deviceId());
            }
            OFFactory of = s.factory();
            Map<Long, FlowRule> known = rules.computeIfAbsent(rule.deviceId(), none -> new ConcurrentHashMap<>());
            OFFlowMod.Builder change = add ? of.buildFlowAdd() : of.buildFlowDeleteStrict();
            change.setXid(of.nextXid()).setCookie(U64.of(rule.id().value()))
                    .setTableId(TableId.of(((IndexTableId) rule.table()).id())).setPriority(rule.priority())
                    .setMatch(Encoding.match(of, rule.selector())).setBufferId(OFBufferId.NO_BUFFER);
            if (add) {
                change.setInstructions(Encoding.instructions(of, rule.treatment()));
                known.put(rule.id().value(), rule);
            } else {
                change.setOutPort(OFPort.ANY).setOutGroup(OFGroup.ANY);
                known.remove(rule.id().value());
            }
            s.sendMsg(change.build());
        }
    }

    private final class OfMeters extends AbstractProvider implements MeterProvider {
        OfMeters() {
            super(PROVIDER);
        }

        @Override
        public void performMeterOperation(DeviceId device, MeterOperations operations) {
            operations.operations().forEach(operation -> performMeterOperation(device, operation));
        }

        @Override
        public void performMeterOperation(DeviceId device, MeterOperation operation) {
            OpenFlowSwitch s = at(device);
            if (s == null) {
                meterService.meterOperationFailed(operation, MeterFailReason.UNKNOWN_DEVICE);
                return;
            }
            Meter meter = operation.meter();
            OFFactory of = s.factory();
            OFMeterModCommand command = command(operation.type());
            OFMeterMod.Builder change =
                    of.buildMeterMod().setXid(of.nextXid()).setMeterId(meter.id().id()).setCommand(command);
            if (command == OFMeterModCommand.DELETE) {
                // one that only the switch has is known by its number alone
                change.setFlags(EnumSet.of(OFMeterFlags.KBPS)).setMeters(List.of());
            } else {
                change.setFlags(Encoding.flags(meter)).setMeters(Encoding.bands(of, meter));
            }
            s.sendMsg(change.build());
        }

        private OFMeterModCommand command(MeterOperation.Type type) {
            switch (type) {
                case ADD:
                    return OFMeterModCommand.ADD;
                case MODIFY:
                    return OFMeterModCommand.MODIFY;
                default:
                    return OFMeterModCommand.DELETE;
            }
        }
    }
}
