package southbound;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.onlab.packet.IpPrefix;
import org.onlab.packet.TpPort;
import org.onlab.packet.VlanId;
import org.onosproject.net.flow.TrafficSelector;
import org.onosproject.net.flow.TrafficTreatment;
import org.onosproject.net.flow.criteria.Criterion;
import org.onosproject.net.flow.criteria.EthCriterion;
import org.onosproject.net.flow.criteria.EthTypeCriterion;
import org.onosproject.net.flow.criteria.IPCriterion;
import org.onosproject.net.flow.criteria.IPProtocolCriterion;
import org.onosproject.net.flow.criteria.IPv6NDTargetAddressCriterion;
import org.onosproject.net.flow.criteria.IcmpCodeCriterion;
import org.onosproject.net.flow.criteria.IcmpTypeCriterion;
import org.onosproject.net.flow.criteria.Icmpv6CodeCriterion;
import org.onosproject.net.flow.criteria.Icmpv6TypeCriterion;
import org.onosproject.net.flow.criteria.PortCriterion;
import org.onosproject.net.flow.criteria.TcpPortCriterion;
import org.onosproject.net.flow.criteria.TunnelIdCriterion;
import org.onosproject.net.flow.criteria.UdpPortCriterion;
import org.onosproject.net.flow.criteria.VlanIdCriterion;
import org.onosproject.net.flow.instructions.Instruction;
import org.onosproject.net.flow.instructions.Instructions;
import org.onosproject.net.flow.instructions.L2ModificationInstruction;
import org.onosproject.net.meter.Band;
import org.onosproject.net.meter.Meter;
import org.projectfloodlight.openflow.protocol.OFFactory;
import org.projectfloodlight.openflow.protocol.OFMeterFlags;
import org.projectfloodlight.openflow.protocol.action.OFAction;
import org.projectfloodlight.openflow.protocol.instruction.OFInstruction;
import org.projectfloodlight.openflow.protocol.match.Match;
import org.projectfloodlight.openflow.protocol.match.MatchField;
import org.projectfloodlight.openflow.protocol.meterband.OFMeterBand;
import org.projectfloodlight.openflow.types.EthType;
import org.projectfloodlight.openflow.types.ICMPv4Code;
import org.projectfloodlight.openflow.types.ICMPv4Type;
import org.projectfloodlight.openflow.types.IPv4Address;
import org.projectfloodlight.openflow.types.IPv6Address;
import org.projectfloodlight.openflow.types.IpProtocol;
import org.projectfloodlight.openflow.types.MacAddress;
import org.projectfloodlight.openflow.types.OFPort;
import org.projectfloodlight.openflow.types.OFVlanVidMatch;
import org.projectfloodlight.openflow.types.TableId;
import org.projectfloodlight.openflow.types.TransportPort;
import org.projectfloodlight.openflow.types.U64;
import org.projectfloodlight.openflow.types.U8;

/** ONOS's selectors, treatments and meters as OpenFlow 1.3 has them; what it does not know fails. */
final class Encoding {
    private Encoding() {
    }

    static Match match(OFFactory factory, TrafficSelector selector) {
        Match.Builder match = factory.buildMatch();
        selector.criteria().forEach(criterion -> criterion(match, criterion));
        return match.build();
    }

    private static void criterion(Match.Builder match, Criterion criterion) {
        switch (criterion.type()) {
            case IN_PORT:
                match.setExact(MatchField.IN_PORT, OFPort.ofInt((int) ((PortCriterion) criterion).port().toLong()));
                break;
            case TUNNEL_ID:
                match.setExact(MatchField.TUNNEL_ID, U64.of(((TunnelIdCriterion) criterion).tunnelId()));
                break;
            case ETH_TYPE:
                int type = ((EthTypeCriterion) criterion).ethType().toShort() & 0xffff;
                match.setExact(MatchField.ETH_TYPE, EthType.of(type));
                break;
            case ETH_SRC:
            case ETH_SRC_MASKED:
                mac(match, MatchField.ETH_SRC, (EthCriterion) criterion);
                break;
            case ETH_DST:
            case ETH_DST_MASKED:
                mac(match, MatchField.ETH_DST, (EthCriterion) criterion);
                break;
            case VLAN_VID:
                VlanId vlan = ((VlanIdCriterion) criterion).vlanId();
                match.setExact(MatchField.VLAN_VID,
                        vlan.equals(VlanId.NONE) ? OFVlanVidMatch.UNTAGGED : OFVlanVidMatch.ofVlan(vlan.toShort()));
                break;
            case IP_PROTO:
                match.setExact(MatchField.IP_PROTO, IpProtocol.of(((IPProtocolCriterion) criterion).protocol()));
                break;
            case IPV4_SRC:
                v4(match, MatchField.IPV4_SRC, ((IPCriterion) criterion).ip());
                break;
            case IPV4_DST:
                v4(match, MatchField.IPV4_DST, ((IPCriterion) criterion).ip());
                break;
            case IPV6_SRC:
                v6(match, MatchField.IPV6_SRC, ((IPCriterion) criterion).ip());
                break;
            case IPV6_DST:
                v6(match, MatchField.IPV6_DST, ((IPCriterion) criterion).ip());
                break;
            case IPV6_ND_TARGET:
                byte[] target = ((IPv6NDTargetAddressCriterion) criterion).targetAddress().toOctets();
                match.setExact(MatchField.IPV6_ND_TARGET, IPv6Address.of(target));
                break;
            case ICMPV4_TYPE:
                match.setExact(MatchField.ICMPV4_TYPE, ICMPv4Type.of(((IcmpTypeCriterion) criterion).icmpType()));
                break;
            case ICMPV4_CODE:
                match.setExact(MatchField.ICMPV4_CODE, ICMPv4Code.of(((IcmpCodeCriterion) criterion).icmpCode()));
                break;
            case ICMPV6_TYPE:
                match.setExact(MatchField.ICMPV6_TYPE, U8.of(((Icmpv6TypeCriterion) criterion).icmpv6Type()));
                break;
            case ICMPV6_CODE:
                match.setExact(MatchField.ICMPV6_CODE, U8.of(((Icmpv6CodeCriterion) criterion).icmpv6Code()));
                break;
            case TCP_SRC:
            case TCP_SRC_MASKED:
                tcp(match, MatchField.TCP_SRC, (TcpPortCriterion) criterion);
                break;
            case TCP_DST:
            case TCP_DST_MASKED:
                tcp(match, MatchField.TCP_DST, (TcpPortCriterion) criterion);
                break;
            case UDP_SRC:
            case UDP_SRC_MASKED:
                udp(match, MatchField.UDP_SRC, (UdpPortCriterion) criterion);
                break;
            case UDP_DST:
            case UDP_DST_MASKED:
                udp(match, MatchField.UDP_DST, (UdpPortCriterion) criterion);
                break;
            default:
                throw new UnsupportedOperationException("criterion " + criterion);
        }
    }

    private static void mac(Match.Builder match, MatchField<MacAddress> field, EthCriterion criterion) {
        MacAddress value = MacAddress.of(criterion.mac().toLong());
        if (criterion.mask() == null) {
            match.setExact(field, value);
        } else {
            match.setMasked(field, value, MacAddress.of(criterion.mask().toLong()));
        }
    }

    private static void v4(Match.Builder match, MatchField<IPv4Address> field, IpPrefix prefix) {
        match.setMasked(field, IPv4Address.of(prefix.address().toOctets()),
                IPv4Address.ofCidrMaskLength(prefix.prefixLength()));
    }

    private static void v6(Match.Builder match, MatchField<IPv6Address> field, IpPrefix prefix) {
        match.setMasked(field, IPv6Address.of(prefix.address().toOctets()),
                IPv6Address.ofCidrMaskLength(prefix.prefixLength()));
    }

    private static void tcp(Match.Builder match, MatchField<TransportPort> field, TcpPortCriterion criterion) {
        port(match, field, criterion.tcpPort(), criterion.mask());
    }

    private static void udp(Match.Builder match, MatchField<TransportPort> field, UdpPortCriterion criterion) {
        port(match, field, criterion.udpPort(), criterion.mask());
    }

    private static void port(Match.Builder match, MatchField<TransportPort> field, TpPort value, TpPort mask) {
        if (mask == null) {
            match.setExact(field, TransportPort.of(value.toInt()));
        } else {
            match.setMasked(field, TransportPort.of(value.toInt()), TransportPort.of(mask.toInt()));
        }
    }

    static List<OFInstruction> instructions(OFFactory factory, TrafficTreatment treatment) {
        List<OFInstruction> all = new ArrayList<>();
        treatment.meters().forEach(meter -> all.add(factory.instructions().meter(meter.meterId().id())));
        List<OFAction> actions = new ArrayList<>();
        for (Instruction instruction : treatment.immediate()) {
            switch (instruction.type()) {
                case OUTPUT:
                    int port = (int) ((Instructions.OutputInstruction) instruction).port().toLong();
                    actions.add(factory.actions().buildOutput().setPort(OFPort.ofInt(port)).setMaxLen(0xffff).build());
                    break;
                case L2MODIFICATION:
                    actions.add(change(factory, (L2ModificationInstruction) instruction));
                    break;
                case NOACTION:
                    break;
                default:
                    throw new UnsupportedOperationException("instruction " + instruction);
            }
        }
        if (!actions.isEmpty()) {
            all.add(factory.instructions().applyActions(actions));
        }
        if (treatment.tableTransition() != null) {
            all.add(factory.instructions().gotoTable(TableId.of(treatment.tableTransition().tableId())));
        }
        return all;
    }

    private static OFAction change(OFFactory factory, L2ModificationInstruction instruction) {
        switch (instruction.subtype()) {
            case VLAN_POP:
                return factory.actions().popVlan();
            case VLAN_PUSH:
                var push = (L2ModificationInstruction.ModVlanHeaderInstruction) instruction;
                return factory.actions().pushVlan(EthType.of(push.ethernetType().toShort() & 0xffff));
            case VLAN_ID:
                short vlan = ((L2ModificationInstruction.ModVlanIdInstruction) instruction).vlanId().toShort();
                return factory.actions().setField(factory.oxms().vlanVid(OFVlanVidMatch.ofVlan(vlan)));
            case TUNNEL_ID:
                long id = ((L2ModificationInstruction.ModTunnelIdInstruction) instruction).tunnelId();
                return factory.actions().setField(factory.oxms().tunnelId(U64.of(id)));
            default:
                throw new UnsupportedOperationException("instruction " + instruction);
        }
    }

    static Set<OFMeterFlags> flags(Meter meter) {
        boolean packets = meter.unit() == Meter.Unit.PKTS_PER_SEC;
        Set<OFMeterFlags> flags = EnumSet.of(OFMeterFlags.STATS, packets ? OFMeterFlags.PKTPS : OFMeterFlags.KBPS);
        if (meter.isBurst()) {
            flags.add(OFMeterFlags.BURST);
        }
        return flags;
    }

    static List<OFMeterBand> bands(OFFactory factory, Meter meter) {
        List<OFMeterBand> bands = new ArrayList<>();
        for (Band band : meter.bands()) {
            if (band.type() != Band.Type.DROP) {
                throw new UnsupportedOperationException("band " + band);
            }
            long burst = band.burst() == null ? 0 : band.burst();
            bands.add(factory.meterBands().buildDrop().setRate(band.rate()).setBurstSize(burst).build());
        }
        return bands;
    }
}
