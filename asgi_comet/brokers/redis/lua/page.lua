-- one channel's page, and its record. scope: 'site' | 'own'; start: 'now' | 'last' | 'first' | 'at', of an own channel 'next' for new.0;
--   a, b: n, or epoch and offset
local function page(meta, log, scope, gen, fresh, start, a, b, most, left)
  local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'l', 'c', 'o', 'g', 'K', 'A', 'a', 'i', 'q', 'z', 'm', 't', 'k', 'ja', 'j')
  if not r[1] or (OWN[r[9]] and 'own' or 'site') ~= scope then return { 'unknown' } end
  local kind, epoch, m = r[9], r[1], { top = tonumber(r[2]), first = tonumber(r[3]), bytes = tonumber(r[4]), age = tonumber(r[10]) }
  local was = m.first
  held(log, m)
  if r[5] ~= gen then epoch, r[13] = fresh, m.top; redis.call('HSET', meta, 'e', epoch, 'q', m.top, 'l', gen) end
  if m.first ~= was then redis.call('HSET', meta, 'f', m.first, 'b', m.bytes) end
  local after
  if start == 'now' then after = m.top
  elseif start == 'last' then after = math.max(m.top - tonumber(a), m.first - 1)
  elseif start == 'first' or start == 'next' then after = scope == 'own' and tonumber(r[11] or '0') or 0
  elseif a == epoch and tonumber(b) <= m.top then after = tonumber(b) end
  local lost = not after or after < m.first - 1
  if lost and kind == 'N' then after, lost = m.first - 1, false end        -- the newest one, whatever the epoch
  local head = { 'ok', epoch, m.top, m.first, r[6] or '', r[7] or '', r[8] or '', r[10] and now or '', r[12], tonumber(r[13] or '0') }
  if kind == 'K' and (lost or start ~= 'at') then head[1] = 'state' return head, r end
  if lost then head[1] = 'full' return head, r end
  local rows = {}
  for i, d in ipairs(most > 0 and redis.call('LRANGE', log, after + 1 - m.first, after - m.first + most) or {}) do
    if left.bytes < #d and left.any then break end
    left.bytes, left.any = left.bytes - #d, true
    rows[i] = d
  end
  head[11], head[12] = after, rows
  return head, r
end
