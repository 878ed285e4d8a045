-- Shows the datagrams of dpdk:// in Wireshark and tshark, 4.0 and later.
--
--     tshark -X lua_script:ringside.lua -r FILE          or put it where personal Lua plugins are
--
-- Design notes
-- - Fields are called as in proto/datagram.h and proto/LAYOUT.md, behind "ringside." and the name of
--   their struct; tests/dissector compares every one of them with what the transport's own code reads.
-- - A struct is shown whole or not at all. What is left over or too short is "ringside.undecoded",
--   and an expert info says why: it is what a receiver drops, or ends the link for.
-- - Datagrams are found by their form on any UDP port, and from then on all of that conversation are
--   taken for ours, spoilt ones too. On the ports of the preference nothing has to be found.
-- - Positions have 64 bits and numbers of Lua 5.2 have 53, so positions are computed with in halves.

local HEADER_BYTES = 40
local STATE_BYTES = 88
local FRAME_HEADER_BYTES = 40
local CONTROL_BYTES_MAX = 512
local IPV4_AND_UDP_BYTES = 28
local CHECKSUM_OFFSET = 16

local HELLO, COOKIE, OPEN, ACCEPT, REFUSE, RESET, DATA, STATE, LANE, PROBE, PROBE_ACK = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local CONTROL, ATTACH, CLOSE = 4, 5, 8

local types = {
    [HELLO] = "HELLO", [COOKIE] = "COOKIE", [OPEN] = "OPEN", [ACCEPT] = "ACCEPT", [REFUSE] = "REFUSE", [RESET] = "RESET",
    [DATA] = "DATA", [STATE] = "STATE", [LANE] = "LANE", [PROBE] = "PROBE", [PROBE_ACK] = "PROBE_ACK",
}
local kinds = { [CONTROL] = "CONTROL", [ATTACH] = "ATTACH", [CLOSE] = "CLOSE" }
local reasons = { [0] = "none", [1] = "NO_LISTENER", [2] = "FULL", [3] = "CLOSED" }
local frame_types = {
    [1] = "MESSAGE", [2] = "ANNOUNCE", [3] = "GAP", [4] = "REQUEST", [5] = "REPLY", [6] = "SNAPSHOT", [7] = "LAST",
}

local ringside = Proto("ringside", "Ringside datagram")
ringside.prefs.ports = Pref.range("UDP ports", "7400", "Ports of listeners, taken for Ringside without a look at the form", 65535)
ringside.prefs.checksum = Pref.bool("Verify the checksum", true, "CRC32C over header and body")

-- ---- fields ------------------------------------------------------------------------------------

local fields = {}

local function field(kind, name, ...)
    local made = ProtoField[kind]("ringside." .. name, name:match("[^.]*$"), ...)
    fields[#fields + 1] = made
    return made
end

-- A struct: rows of name, bytes, how it is shown ("hex", "raw", or a table of values), and parts of it by mask.
local function layout(prefix, rows)
    local made = { bytes = 0 }
    for _, row in ipairs(rows) do
        local name, bytes, shown, parts = row[1], row[2], row[3], row[4] or {}
        local path = prefix .. name
        local entry = { offset = made.bytes, bytes = bytes, parts = {} }
        if shown == "raw" then
            entry.field = field("bytes", path)
        else
            entry.field = field("uint" .. bytes * 8, path, shown == "hex" and base.HEX or base.DEC,
                type(shown) == "table" and shown or nil)
        end
        for _, part in ipairs(parts) do
            local kind = part[3] and "bool" or "uint" .. bytes * 8
            entry.parts[#entry.parts + 1] = field(kind, path .. "." .. part[1], part[3] and bytes * 8 or base.DEC, nil, part[2])
        end
        made[#made + 1] = entry
        made.bytes = made.bytes + bytes
    end
    return made
end

local name_parts = { { "index", 0x000fffff }, { "generation", 0xfff00000 } }

local header_layout = layout("", {
    { "version", 1 },
    { "type", 1, types },
    { "flags", 1, "hex", { { "state", 1, true }, { "reply", 2, true }, { "attached", 4, true } } },
    { "reserved_0", 1 },
    { "connection", 4, "hex", name_parts },
    { "from", 4, "hex", name_parts },
    { "bytes", 2 },
    { "reserved_1", 2 },
    { "checksum", 4, "hex" },
    { "timestamp_ns", 4 },
    { "echo_ns", 4 },
    { "reserved_2", 4 },
    { "number", 8 },
})
local hello_layout = layout("hello.", {
    { "nonce", 8, "hex" }, { "cookie_time", 4 }, { "mtu", 2 }, { "reason", 2, reasons }, { "cookie", 16, "raw" },
})
local greeting_layout = layout("greeting.", {
    { "magic", 8, "hex" }, { "version_min", 2 }, { "version_max", 2 }, { "control_credit", 2 }, { "batch_credit", 2 },
    { "ring_bytes_max", 4 }, { "agent_hint", 4 }, { "nonce", 8, "hex" }, { "incarnation", 8, "hex" }, { "reserved", 16, "raw" },
})
local reset_layout = layout("reset.", { { "number", 8 } })
local state_layout = layout("state.", {
    { "received_pos", 8 }, { "arrived_pos", 8 }, { "consumed_pos", 8 }, { "number_limit", 8 }, { "sent_pos", 8 },
    { "state_seen", 8 }, { "lane_received", 8 }, { "control_limit", 8 }, { "wake_arrived_at_least", 8 },
    { "wake_consumed_at_least", 8 }, { "wake_generation", 4 }, { "wake_answered", 4 },
})
local data_layout = layout("data.", { { "position", 8 } })
local range_layout = layout("range.", { { "start_pos", 8 }, { "end_pos", 8 } })
local lane_layout = layout("lane.", {
    { "sequence", 8 }, { "bytes", 2 }, { "kind", 1, kinds }, { "reserved_0", 1 }, { "reserved_1", 4 },
})
local attach_layout = layout("attach.", {
    { "in_ring_bytes", 8 }, { "in_start_pos", 8 }, { "words_address", 8, "hex" }, { "ring_address", 8, "hex" }, { "key", 4, "hex" },
    { "batch_credit", 4 }, { "reserved", 8 },
})
local probe_layout = layout("probe.", { { "mtu", 4 }, { "reserved", 4 } })
local frame_layout = layout("frame.", {
    { "commit", 8, "hex" }, { "payload_bytes", 4 }, { "type", 1, frame_types }, { "flags", 1, "hex" }, { "headers_bytes", 2 },
    { "publication", 4 }, { "generation", 2 }, { "entry_count", 2 }, { "sequence", 8 }, { "publish_time_ns", 8 },
})

local checksum_status = field("uint8", "checksum.status", base.DEC, { [0] = "bad", [1] = "good", [2] = "unverified" })
local ring_bytes = field("bytes", "data.ring_bytes")
local frame_bytes = field("uint32", "frame.bytes", base.DEC)
local lane_control = field("bytes", "lane.control")
local lane_text = field("string", "lane.text")
local lane_padding = field("bytes", "lane.padding")
local probe_padding = field("bytes", "probe.padding")
local undecoded = field("bytes", "undecoded")

local malformed = ProtoExpert.new("ringside.malformed", "Malformed datagram", expert.group.MALFORMED, expert.severity.ERROR)
local cut = ProtoExpert.new("ringside.cut", "The capture holds only the beginning", expert.group.UNDECODED, expert.severity.NOTE)
local bad_checksum = ProtoExpert.new("ringside.checksum.bad", "Wrong checksum: the receiver drops it", expert.group.CHECKSUM,
    expert.severity.ERROR)
local unknown_version = ProtoExpert.new("ringside.version.unknown", "Unknown version: the receiver drops it",
    expert.group.PROTOCOL, expert.severity.WARN)
local unknown_type = ProtoExpert.new("ringside.type.unknown", "Unknown type: the receiver drops it", expert.group.PROTOCOL,
    expert.severity.WARN)

ringside.fields = fields
ringside.experts = { malformed, cut, bad_checksum, unknown_version, unknown_type }

-- ---- checksum ----------------------------------------------------------------------------------

-- Lua 5.2 has bit32; later ones have operators, which 5.2 could not even read.
local bits = bit32 or load("return { bxor = function(a, b) return a ~ b end, band = function(a, b) return a & b end, " ..
    "rshift = function(a, n) return a >> n end }")()
local bxor, band, rshift = bits.bxor, bits.band, bits.rshift

local crc32c_table = {}
for byte = 0, 255 do
    local value = byte
    for _ = 1, 8 do
        value = band(value, 1) == 1 and bxor(rshift(value, 1), 0x82f63b78) or rshift(value, 1)
    end
    crc32c_table[byte] = value
end

local function crc32c(text)
    local value = 0xffffffff
    for index = 1, #text do
        value = bxor(rshift(value, 8), crc32c_table[band(bxor(value, text:byte(index)), 0xff)])
    end
    return bxor(value, 0xffffffff)
end

-- ---- bodies ------------------------------------------------------------------------------------
--
-- `view` is a datagram on its way through: buffer, tree, where its body's next byte is and where it ends, and whether
-- the capture holds less than was sent.

local function show(tree, buffer, offset, made)
    for _, entry in ipairs(made) do
        local range = buffer(offset + entry.offset, entry.bytes)
        local item = tree:add_le(entry.field, range)
        for _, part in ipairs(entry.parts) do
            item:add_le(part, range)
        end
    end
end

local function left(view)
    return view.stop - view.at
end

local function complain(view, text)
    if view.is_cut then
        view.tree:add_proto_expert_info(cut)
    else
        view.tree:add_proto_expert_info(malformed, text)
    end
    view.is_bad = true
end

local function show_undecoded(view)
    if left(view) > 0 then
        view.tree:add(undecoded, view.buffer(view.at, left(view)))
        view.at = view.stop
    end
end

-- The struct that is next; false: it is not all there.
local function take(view, made, title)
    if left(view) < made.bytes then
        complain(view, title .. ": " .. left(view) .. " bytes, must have " .. made.bytes)
        show_undecoded(view)
        return false
    end
    local tree = view.tree:add(view.buffer(view.at, made.bytes), title)
    show(tree, view.buffer, view.at, made)
    view.at = view.at + made.bytes
    return true, tree
end

local function is_odd(buffer, offset)
    return buffer(offset, 1):le_uint() % 8 ~= 0
end

local function take_hello(view)
    return take(view, hello_layout, "Hello")
end

local function take_hello_and_greeting(view)
    return take_hello(view) and take(view, greeting_layout, "Greeting")
end

local function take_reset(view)
    return take(view, reset_layout, "Reset")
end

-- The commit word of a frame tells its own position, so frames are found also where the datagram begins inside of one.
local function show_frames(view, tree, position_at, start, bytes)
    local buffer = view.buffer
    local low, high = buffer(position_at, 4):le_uint(), buffer(position_at + 4, 4):le_uint()
    local first = math.floor(low / 8) + high % 2 ^ 11 * 2 ^ 29 -- position / 8, of which a commit word has 40 bits
    local at = 0
    while at + FRAME_HEADER_BYTES <= bytes do
        local word = start + at
        local length = buffer(word, 3):le_uint() * 8
        local index = buffer(word + 3, 1):le_uint() + buffer(word + 4, 4):le_uint() * 256
        if length >= FRAME_HEADER_BYTES and index == (first + at / 8) % 2 ^ 40 then
            local item = tree:add(buffer(word, math.min(length, bytes - at)), "Frame")
            item:add(frame_bytes, buffer(word, 3), length):set_generated()
            show(item, buffer, word, frame_layout)
            at = at + length
        else
            at = at + 8
        end
    end
end

local function take_data(view)
    local position_at = view.at
    local is_whole, tree = take(view, data_layout, "Data")
    if not is_whole then
        return
    end
    local start, bytes = view.at, left(view)
    if bytes == 0 then
        complain(view, "Data without ring bytes")
        return
    end
    if is_odd(view.buffer, position_at) or bytes % 8 ~= 0 then
        complain(view, "Position and length must be multiples of 8")
    end
    tree:set_len(data_layout.bytes + bytes)
    tree:add(ring_bytes, view.buffer(start, bytes))
    view.info = " +" .. bytes
    show_frames(view, tree, position_at, start, bytes)
    view.at = view.stop
end

local function take_ranges(view)
    local buffer = view.buffer
    while left(view) > 0 do
        local at = view.at
        if not take(view, range_layout, "Missing") then
            return
        end
        if is_odd(buffer, at) or is_odd(buffer, at + 8) or not (buffer(at, 8):le_uint64() < buffer(at + 8, 8):le_uint64()) then
            complain(view, "A range goes up, from and to multiples of 8")
        end
    end
end

-- What a lane record holds, `bytes` long.
local function show_record(view, tree, kind, at, bytes)
    local buffer = view.buffer
    if kind == ATTACH and bytes == attach_layout.bytes then
        show(tree, buffer, at, attach_layout)
        return
    elseif kind == ATTACH then
        complain(view, "An attach record has " .. attach_layout.bytes .. " bytes")
    elseif kind == CONTROL and (bytes == 0 or bytes > CONTROL_BYTES_MAX) then
        complain(view, "A control message has 1 to " .. CONTROL_BYTES_MAX .. " bytes")
    elseif not kinds[kind] then
        complain(view, "No lane record is of kind " .. kind)
    end
    if bytes > 0 then
        local known = kind == CONTROL and lane_control or kind == CLOSE and lane_text or undecoded
        tree:add(known, buffer(at, bytes))
    end
end

local function take_lane(view)
    local buffer = view.buffer
    local names = {}
    while left(view) > 0 do
        local head_at = view.at
        local is_whole, tree = take(view, lane_layout, "Lane record")
        if not is_whole then
            return
        end
        local bytes, kind = buffer(head_at + 8, 2):le_uint(), buffer(head_at + 10, 1):le_uint()
        local padding = -bytes % 8
        if left(view) < bytes + padding then
            complain(view, "A lane record has " .. bytes + padding .. " bytes more, here are " .. left(view))
            show_undecoded(view)
            return
        end
        show_record(view, tree, kind, view.at, bytes)
        if padding > 0 then
            tree:add(lane_padding, buffer(view.at + bytes, padding))
        end
        tree:set_len(lane_layout.bytes + bytes + padding)
        view.at = view.at + bytes + padding
        names[#names + 1] = kinds[kind] or "?"
    end
    view.info = " " .. table.concat(names, " ")
end

local function take_probe(view)
    local at = view.at
    local body_bytes = left(view)
    local is_whole, tree = take(view, probe_layout, "Probe")
    if not is_whole then
        return
    end
    local mtu = view.buffer(at, 4):le_uint()
    if left(view) > 0 then
        tree:add(probe_padding, view.buffer(view.at, left(view)))
        view.at = view.stop
    end
    if mtu ~= IPV4_AND_UDP_BYTES + HEADER_BYTES + body_bytes then
        complain(view, "A probe is as long as it says")
    end
    view.info = " mtu " .. mtu
end

local function take_probe_ack(view)
    return take(view, probe_layout, "Probe came through")
end

local bodies = {
    [HELLO] = take_hello, [COOKIE] = take_hello, [OPEN] = take_hello_and_greeting, [ACCEPT] = take_hello_and_greeting,
    [REFUSE] = take_hello, [RESET] = take_reset, [DATA] = take_data, [STATE] = take_ranges, [LANE] = take_lane,
    [PROBE] = take_probe, [PROBE_ACK] = take_probe_ack,
}

-- ---- the datagram ------------------------------------------------------------------------------

local function show_checksum(buffer, tree, view)
    local range = buffer(CHECKSUM_OFFSET, 4)
    local status = 2
    if ringside.prefs.checksum and not view.is_cut then
        local text = buffer:raw(0, CHECKSUM_OFFSET) .. "\0\0\0\0" .. buffer:raw(CHECKSUM_OFFSET + 4, view.stop - CHECKSUM_OFFSET - 4)
        status = crc32c(text) == range:le_uint() and 1 or 0
    end
    tree:add(checksum_status, range, status):set_generated()
    if status == 0 then
        tree:add_proto_expert_info(bad_checksum)
        view.is_bad = true
    end
end

local function connection_name(buffer, offset)
    local name = buffer(offset, 4):le_uint()
    return name % 2 ^ 20 .. "/" .. math.floor(name / 2 ^ 20)
end

local function show_body(view, type)
    local flags = view.buffer(2, 1):le_uint()
    if not bodies[type] then
        view.tree:add_proto_expert_info(unknown_type)
    else
        local has_state = (type == DATA or type == STATE or type == LANE) and flags % 2 == 1
        if not has_state or take(view, state_layout, "State") then
            bodies[type](view)
        end
    end
    show_undecoded(view)
end

function ringside.dissector(buffer, packet, tree)
    local sent_bytes, here_bytes = buffer:reported_len(), buffer:len()
    local root = tree:add(ringside, buffer())
    local view = { buffer = buffer, tree = root, at = 0, stop = here_bytes, is_cut = here_bytes < sent_bytes, info = "" }
    packet.cols.protocol = "Ringside"
    if here_bytes < HEADER_BYTES then
        packet.cols.info = "malformed"
        complain(view, "A datagram has " .. HEADER_BYTES .. " bytes at least, here are " .. here_bytes)
        show_undecoded(view)
        return
    end
    show(root, buffer, 0, header_layout)
    view.at = HEADER_BYTES
    local version, type, bytes = buffer(0, 1):le_uint(), buffer(1, 1):le_uint(), buffer(12, 2):le_uint()
    show_checksum(buffer, root, view)
    if bytes ~= sent_bytes - HEADER_BYTES then
        complain(view, "It says that " .. bytes .. " bytes follow, here are " .. sent_bytes - HEADER_BYTES)
        show_undecoded(view)
    elseif version ~= 1 then
        root:add_proto_expert_info(unknown_version)
        show_undecoded(view)
    else
        show_body(view, type)
    end
    packet.cols.info = (types[type] or "type " .. type) .. " #" .. tostring(buffer(32, 8):le_uint64()) .. " from " ..
        connection_name(buffer, 8) .. " to " .. connection_name(buffer, 4) .. view.info .. (view.is_bad and " (see expert info)" or "")
    root:append_text(", " .. (types[type] or "unknown type"))
end

-- ---- finding them ------------------------------------------------------------------------------

local function has_the_form(buffer)
    return buffer:len() >= HEADER_BYTES and buffer(0, 1):uint() == 1 and types[buffer(1, 1):uint()] ~= nil and
        buffer(2, 1):uint() < 8 and buffer(3, 1):uint() == 0 and buffer(12, 2):le_uint() == buffer:reported_len() - HEADER_BYTES and
        buffer(14, 2):uint() == 0 and buffer(28, 4):uint() == 0
end

ringside:register_heuristic("udp", function(buffer, packet, tree)
    if not has_the_form(buffer) then
        return false
    end
    packet.conversation = ringside
    ringside.dissector(buffer, packet, tree)
    return true
end)

local udp_ports = DissectorTable.get("udp.port")
local ports_now = ringside.prefs.ports

function ringside.prefs_changed()
    if ports_now ~= ringside.prefs.ports then
        if ports_now ~= "" then
            udp_ports:remove(ports_now, ringside)
        end
        ports_now = ringside.prefs.ports
        if ports_now ~= "" then
            udp_ports:add(ports_now, ringside)
        end
    end
end

udp_ports:add(ports_now, ringside)
