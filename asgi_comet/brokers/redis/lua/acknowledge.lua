local function acknowledge(meta, log, upto)              -- drops what the reader has; upto: at most the top. Returns the first held
  local m = redis.call('HMGET', meta, 'f', 'b', 'k', 'a')
  local first, bytes = tonumber(m[1]), tonumber(m[2])
  if upto >= first then
    for _, old in ipairs(redis.call('LPOP', log, upto + 1 - first) or {}) do bytes = bytes - #old end
    first = upto + 1
  end
  redis.call('HSET', meta, 'f', first, 'b', bytes, 'k', math.max(tonumber(m[3] or '0'), upto),
    'a', math.max(tonumber(m[4] or '0'), upto))
  return first
end
local function skip(meta, after, upto)                   -- the reader is told `full`, and goes on after upto
  local m = redis.call('HMGET', meta, 'a', 'ja', 'j')
  if upto <= tonumber(m[3] or '0') then return end
  local got = tonumber(m[1] or '0')
  if got < upto then after = math.max(after, got) end    -- else it has come back before this report
  redis.call('HSET', meta, 'ja', math.min(after, tonumber(m[2] or after)), 'j', upto)
end
