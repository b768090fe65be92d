-- SPDX-License-Identifier: BSD-3-Clause
-- Wireshark dissector for cowtgt's additions to SCSI, as docs/cow-layer-extension.md has them: VPD
-- page D5h and GET LAYER STATUS (C5h). It reads iSCSI PDUs itself, beside Wireshark's own dissector,
-- because what an answer is depends on its command. Any port will do.
--   tshark -X lua_script:cowtgt.lua -r cowtgt.pcap -Y cowtgt -V

local cowtgt = Proto("cowtgt", "cowtgt COW layer extension")

local views = { [0] = "flat", [1] = "delta", [2] = "image" }
local states = { [0] = "data", [1] = "zeros", [2] = "no layer has a say", [3] = "compressed data" }
local flags = { [0] = "read-only", [1] = "top", [2] = "base", [4] = "sealed",
                [5] = "parent on another target", [6] = "a stream runs" }

local f = cowtgt.fields
f.kind = ProtoField.string("cowtgt.kind", "What")
f.lba = ProtoField.uint64("cowtgt.lba", "Starting LBA")
f.layers_asked = ProtoField.uint8("cowtgt.layers_asked", "Layers to look into (0: all)")
f.generation = ProtoField.uint32("cowtgt.generation", "Generation of the chain")
f.next_lba = ProtoField.uint64("cowtgt.next_lba", "Next LBA")
f.extent = ProtoField.bytes("cowtgt.extent", "Extent")
f.extent_lba = ProtoField.uint64("cowtgt.extent.lba", "LBA")
f.extent_blocks = ProtoField.uint32("cowtgt.extent.blocks", "Blocks")
f.extent_state = ProtoField.uint8("cowtgt.extent.state", "State", base.DEC, states)
f.extent_depth = ProtoField.uint16("cowtgt.extent.depth", "Depth of the layer that decides")
f.version = ProtoField.uint8("cowtgt.version", "Version")
f.flags = ProtoField.uint8("cowtgt.flags", "Flags", base.HEX)
f.index = ProtoField.uint16("cowtgt.index", "Index of the layer")
f.layers = ProtoField.uint16("cowtgt.layers", "Layers in the chain")
f.view = ProtoField.uint8("cowtgt.view", "View", base.DEC, views)
f.chain_uuid = ProtoField.guid("cowtgt.chain_uuid", "Chain")
f.layer_uuid = ProtoField.guid("cowtgt.layer_uuid", "Layer")
f.parent_uuid = ProtoField.guid("cowtgt.parent_uuid", "Parent layer")
f.parent_lun = ProtoField.bytes("cowtgt.parent_lun", "LUN of the parent")
f.granularity = ProtoField.uint32("cowtgt.granularity", "Allocation granularity in blocks")
f.name = ProtoField.string("cowtgt.name", "Name of the layer")

local SCSI_COMMAND, DATA_IN = 0x01, 0x25
local commands = {} -- "stream/ITT" -> "status" or "page": the last command of that tag
local answers = {}  -- "frame/offset" -> the same, from the first pass: tags are used again
local stream_field = Field.new("tcp.stream")
local payload_field = Field.new("tcp.payload")

cowtgt.init = function()
    commands, answers = {}, {}
end

local function show_status(data, tree)
    tree:add(f.kind, "GET LAYER STATUS answer")
    if data:len() < 16 then return end
    tree:add(f.generation, data(4, 4))
    tree:add(f.next_lba, data(8, 8))
    local at = 16
    local last = math.min(data:len(), data(0, 4):uint() + 4)
    while at + 16 <= last do
        local d = data(at, 16)
        local sub = tree:add(f.extent, d)
        local state = d(12, 1):uint()
        sub:set_text(string.format("LBA %s, %u blocks: %s", tostring(d(0, 8):uint64()), d(8, 4):uint(),
                                   states[state] or "unknown"))
        sub:add(f.extent_lba, d(0, 8))
        sub:add(f.extent_blocks, d(8, 4))
        sub:add(f.extent_state, d(12, 1))
        sub:add(f.extent_depth, d(14, 2))
        at = at + 16
    end
end

local function show_page(data, tree)
    tree:add(f.kind, "VPD page D5h")
    if data:len() < 82 or data(4, 4):string() ~= "COWL" then return end
    tree:add(f.version, data(8, 1))
    local item, said = tree:add(f.flags, data(9, 1)), {}
    for bit = 0, 7 do
        if flags[bit] and bit32.band(data(9, 1):uint(), bit32.lshift(1, bit)) ~= 0 then
            said[#said + 1] = flags[bit]
        end
    end
    item:append_text(" (" .. table.concat(said, ", ") .. ")")
    tree:add(f.index, data(10, 2))
    tree:add(f.layers, data(12, 2))
    tree:add(f.view, data(14, 1))
    tree:add(f.chain_uuid, data(16, 16))
    tree:add(f.layer_uuid, data(32, 16))
    tree:add(f.parent_uuid, data(48, 16))
    tree:add(f.parent_lun, data(64, 8))
    tree:add(f.granularity, data(72, 4))
    tree:add(f.generation, data(76, 4))
    local n = math.min(data(80, 2):uint(), data:len() - 82)
    if n > 0 then tree:add(f.name, data(82, n)) end
end

-- A SCSI command: is it one of ours? Its answer is known by stream and ITT.
local function take_command(pdu, key, tree)
    local cdb = pdu(32, 16)
    local op = cdb(0, 1):uint()
    if op == 0xc5 then
        commands[key] = "status"
        local sub = tree:add(cowtgt, cdb, "GET LAYER STATUS")
        sub:add(f.kind, "GET LAYER STATUS")
        sub:add(f.lba, cdb(2, 8))
        sub:add(f.layers_asked, cdb(14, 1))
    elseif op == 0x12 and cdb(1, 1):uint() == 1 and cdb(2, 1):uint() == 0xd5 then
        commands[key] = "page"
        tree:add(cowtgt, cdb, "INQUIRY, VPD page D5h"):add(f.kind, "INQUIRY of VPD page D5h")
    else
        commands[key] = nil
    end
end

-- One PDU at @at; its length, or nil where the segment ends before it does.
local function one_pdu(tvb, at, stream, pinfo, tree)
    if tvb:len() - at < 48 then return nil end
    local ahs = tvb(at + 4, 1):uint() * 4
    local data_len = tvb(at + 5, 3):uint()
    local whole = 48 + ahs + math.floor((data_len + 3) / 4) * 4
    if tvb:len() - at < whole then return nil end
    local pdu = tvb(at, whole)
    local op = bit32.band(pdu(0, 1):uint(), 0x3f)
    local key = stream .. "/" .. tostring(pdu(16, 4))
    if op == SCSI_COMMAND then
        take_command(pdu, key, tree)
    elseif op == DATA_IN and data_len > 0 then
        local place = pinfo.number .. "/" .. at
        local data = pdu(48 + ahs, data_len)
        if not pinfo.visited then answers[place] = commands[key] end
        if answers[place] == nil then return whole end
        if answers[place] == "status" then
            show_status(data, tree:add(cowtgt, data, "GET LAYER STATUS"))
        else
            show_page(data, tree:add(cowtgt, data, "VPD page D5h"))
        end
    end
    return whole
end

-- Beside the iSCSI dissector: PDUs that lie whole in one segment, without digests. These commands
-- and answers are short, so that is nearly always so.
function cowtgt.dissector(_, pinfo, tree)
    local stream, payload, at = stream_field(), payload_field(), 0
    if not stream or not payload then return end
    local tvb = payload.range:tvb()
    while at < tvb:len() do
        local n = one_pdu(tvb, at, tostring(stream.value), pinfo, tree)
        if not n then return end
        at = at + n
    end
end

register_postdissector(cowtgt)
