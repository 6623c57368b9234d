"""A second controller of a switch, which reads and writes OpenFlow 1.3 by os-ken's codec alone.

Reads frames that change a switch from the standard input, one in hexadecimal a line. Listens on the
loopback and prints its port. Lets one switch come, asks it to be its slave, tries to change something,
which a slave must not, and reads its flows, meters and groups. Prints as JSON what the switch has and
what the frames make, both in os-ken's words.
"""

import json
import socket
import struct
import sys

from os_ken.ofproto import ofproto_parser
from os_ken.ofproto import ofproto_protocol
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser

PATIENCE = 30
# what says how long something is, and nothing of what it does
LENGTHS = ("len", "length")


class Switch:
    """The connection of the switch that came."""

    def __init__(self, listener):
        self.stream, _ = listener.accept()
        self.stream.settimeout(PATIENCE)
        self.protocol = ofproto_protocol.ProtocolDesc(version=of.OFP_VERSION)
        self.xid = 0
        self.send(parser.OFPHello(self.protocol))
        self.until(lambda message: message.msg_type == of.OFPT_HELLO)

    def send(self, message):
        self.xid += 1
        message.set_xid(self.xid)
        message.serialize()
        self.stream.sendall(message.buf)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.stream.recv(size - len(data))
            if not more:
                raise SystemExit("the switch has ended the connection")
            data += more
        return data

    def until(self, wanted):
        """The next message that is wanted; a beat is answered meanwhile."""
        while True:
            head = self.exactly(of.OFP_HEADER_SIZE)
            version, kind, length, xid = struct.unpack(of.OFP_HEADER_PACK_STR, head)
            body = head + self.exactly(length - len(head))
            message = ofproto_parser.msg(self.protocol, version, kind, length, xid, body)
            if kind == of.OFPT_ECHO_REQUEST:
                reply = parser.OFPEchoReply(self.protocol, message.data)
                reply.set_xid(xid)
                reply.serialize()
                self.stream.sendall(reply.buf)
            elif wanted(message):
                return message

    def answer(self, message):
        self.send(message)
        return self.until(lambda said: said.xid == self.xid)

    def parts(self, message):
        """All that an answer in parts has."""
        said, all_of_it = self.answer(message), []
        while True:
            all_of_it.extend(said.body)
            if not said.flags & of.OFPMPF_REPLY_MORE:
                return all_of_it
            said = self.until(lambda more: more.xid == self.xid)


def plain(what):
    """Without lengths, and with a fixed order where order means nothing."""
    if isinstance(what, dict):
        return {key: plain(value) for key, value in what.items() if key not in LENGTHS}
    if isinstance(what, list):
        return [plain(value) for value in what]
    return what


def words(**parts):
    return json.dumps({name: plain(part) for name, part in parts.items()}, sort_keys=True)


def flow(said):
    fields = said.match.to_jsondict()["OFPMatch"]["oxm_fields"]
    steps = [step.to_jsondict() for step in said.instructions]
    return words(
        table=said.table_id,
        priority=said.priority,
        cookie="%016x" % said.cookie,
        match=sorted(fields, key=lambda field: field["OXMTlv"]["field"]),
        # a switch does them in an order of its own, whatever the one in which they are said
        instructions=sorted(steps, key=lambda step: sorted(step)),
    )


def meter(number, flags, bands):
    return words(id=number, flags=flags, bands=[band.to_jsondict() for band in bands])


def group(number, kind, buckets):
    ways = [bucket.to_jsondict()["OFPBucket"]["actions"] for bucket in buckets]
    return words(id=number, kind=kind, ways=sorted(ways, key=lambda way: json.dumps(way, sort_keys=True)))


def listed(part, kind, frame, offset):
    """What is in a frame from here to its end."""
    found = []
    while offset < len(frame):
        found.append(part.parser(frame, offset))
        offset += getattr(found[-1], "len", 0) or kind
    return found


def made(frame):
    """What a frame that changes a switch makes: which list it goes into, and the words."""
    version, kind, length, xid = struct.unpack_from(of.OFP_HEADER_PACK_STR, frame)
    if kind == of.OFPT_FLOW_MOD:
        protocol = ofproto_protocol.ProtocolDesc(version=of.OFP_VERSION)
        said = ofproto_parser.msg(protocol, version, kind, length, xid, frame)
        assert said.command == of.OFPFC_ADD, said
        return "flows", flow(said)
    # os-ken writes these two and does not read them: its parts do (A.3.4.2, A.3.4.4)
    if kind == of.OFPT_METER_MOD:
        command, flags, number = struct.unpack_from("!HHI", frame, 8)
        assert command == of.OFPMC_ADD, command
        bands = listed(parser.OFPMeterBandHeader, of.OFP_METER_BAND_DROP_SIZE, frame, 16)
        return "meters", meter(number, flags, bands)
    if kind == of.OFPT_GROUP_MOD:
        command, sort, number = struct.unpack_from("!HBxI", frame, 8)
        assert command == of.OFPGC_ADD, command
        return "groups", group(number, sort, listed(parser.OFPBucket, 0, frame, 16))
    raise SystemExit("a frame of type %d changes nothing" % kind)


def main():
    wanted = {"flows": [], "meters": [], "groups": []}
    for line in sys.stdin:
        into, said = made(bytes.fromhex(line.strip()))
        wanted[into].append(said)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    print(listener.getsockname()[1], flush=True)
    switch = Switch(listener)
    protocol = switch.protocol

    features = switch.answer(parser.OFPFeaturesRequest(protocol))
    role = switch.answer(parser.OFPRoleRequest(protocol, of.OFPCR_ROLE_SLAVE, 0))
    refused = switch.answer(parser.OFPFlowMod(protocol, table_id=0, command=of.OFPFC_DELETE))
    flows = switch.parts(parser.OFPFlowStatsRequest(protocol, 0))
    meters = switch.parts(parser.OFPMeterConfigStatsRequest(protocol, 0))
    groups = switch.parts(parser.OFPGroupDescStatsRequest(protocol, 0))

    held = {
        "flows": [flow(said) for said in flows],
        "meters": [meter(said.meter_id, said.flags, said.bands) for said in meters],
        "groups": [group(said.group_id, said.type, said.buckets) for said in groups],
    }
    answer = {
        "datapath": features.datapath_id,
        "slave": role.role == of.OFPCR_ROLE_SLAVE,
        "refused": [refused.type, refused.code] if refused.msg_type == of.OFPT_ERROR else None,
        "held": held,
        "wanted": wanted,
    }
    print(json.dumps(answer))


main()
