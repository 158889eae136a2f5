-- beat: a worker is alive. KEYS: workers, dead, calm, members, numbers.
-- ARGV: worker, '1' if it joins, life ms, turn ms, quiet ms, calm ms, how many members of families it owns,
--   digest of the names that it declares, the number that it had, or else 0
local worker, life = ARGV[1], tonumber(ARGV[3])
local alive, newest = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), 0
for i = 2, #alive, 2 do newest = math.max(newest, tonumber(alive[i])) end
if redis.call('HEXISTS', KEYS[2], worker) == 1 then return { 'dead' } end
if ARGV[2] ~= '1' and not redis.call('ZSCORE', KEYS[1], worker) then return { 'missing' } end
if newest - life < now - ARGV[5] or newest - life > now + 1000 then            -- Redis was away, or its clock jumped
  for i = 1, #alive, 2 do redis.call('ZADD', KEYS[1], now + life, alive[i]) end
  local dead = redis.call('HGETALL', KEYS[2])
  for i = 1, #dead, 2 do redis.call('HSET', KEYS[2], dead[i], now + life .. ' ') end
  redis.call('SET', KEYS[3], now + ARGV[6])
end
redis.call('ZADD', KEYS[1], now + life, worker)
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)) do
  redis.call('ZREM', KEYS[1], late)
  redis.call('HDEL', KEYS[4], late)
  redis.call('HSET', KEYS[2], late, '0 ')
end
redis.call('HSET', KEYS[4], worker, ARGV[7] .. ' ' .. ARGV[8])
local members, mixed = 0, 0
for _, value in ipairs(redis.call('HVALS', KEYS[4])) do
  local count, digest = string.match(value, '^(%d+) (.*)$')
  members = members + count
  if digest ~= ARGV[8] then mixed = 1 end
end
local numbers, taken, number = redis.call('HGETALL', KEYS[5]), {}, nil
for i = 1, #numbers, 2 do
  if numbers[i] == worker then number = numbers[i + 1]
  elseif redis.call('ZSCORE', KEYS[1], numbers[i]) then taken[numbers[i + 1]] = true
  else redis.call('HDEL', KEYS[5], numbers[i]) end
end
if not number then                                                             -- the former one, or the lowest one
  number = ARGV[9]
  if taken[number] then
    number = 0
    while taken[tostring(number)] do number = number + 1 end
  end
  redis.call('HSET', KEYS[5], worker, number)
end
local mine, dead = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #dead, 2 do
  local over, heir = string.match(dead[i + 1], '^(%d+) (.*)$')
  if tonumber(over) < now then
    redis.call('HSET', KEYS[2], dead[i], now + ARGV[4] .. ' ' .. worker)
    heir = worker
  end
  if heir == worker then mine[#mine + 1] = dead[i] end
end
local calm = tonumber(redis.call('GET', KEYS[3]) or '0') <= now
return { 'alive', calm and 1 or 0, redis.call('ZRANGE', KEYS[1], 0, -1), mine, members, mixed, now, tonumber(number) }
