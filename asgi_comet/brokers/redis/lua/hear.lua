-- hear: entries of the control log after a position. KEYS: record, log, lin.
-- ARGV: durable, fresh generation, fresh epoch, epoch, offset, how many at most
local gen = lineage(KEYS[3], ARGV[2], ARGV[1])
local epoch, top, first = position(KEYS[1], KEYS[2], gen, ARGV[3])
local from = first
if ARGV[4] == epoch then from = math.max(first, ARGV[5] + 1) end
local rows = {}
if tonumber(ARGV[6]) > 0 then rows = redis.call('LRANGE', KEYS[2], from - first, from - first + ARGV[6] - 1) end
return { epoch, top, from, now, rows }
