-- Leases due jobs of a shard's tenants, in the order and number that are asked for.
--
-- KEYS     turn, fence, this process' last answer, all jobs of the line, then the queue of each tenant
-- ARGV[1]  msgpack: {number, stamp, now, till, {tenant, most, turn after}...}
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: {tenant's place, id, fence}...
--
-- The answer is kept under its number, so that one whose reply was lost is given again. A tenant that was
-- served comes again at the turn it is told, or when its next job is due if that is later; one that had
-- nothing due does not come again in this millisecond.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local number, stamp, now, till, tenants = ask[1], ask[2], ask[3], ask[4], ask[5]
local time = redis.call('TIME')
if stamp < time[1] * 1000 + math.floor(time[2] / 1000) - 2000 then
  return redis.error_reply('LATE nobody waits for this any more')
end
local types = { 'zset', 'hash', 'hash', 'zset' }
for i, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= (types[i] or 'zset') then
    return redis.error_reply('MISTYPED a key is a ' .. is)
  end
end

local kept = redis.call('HMGET', KEYS[3], 'n', 'a')
if kept[1] and tonumber(kept[1]) == number then return { nonce, kept[2] } end

-- Returns the next fence of a lease: the instant, or one more than the last. A lease that was lost in a failover
-- is not given again under the number it had, so that its two holders are told apart.
local function fence(name)
  local next = math.max((tonumber(redis.call('HGET', KEYS[2], name)) or 0) + 1, now)
  redis.call('HSET', KEYS[2], name, string.format('%.0f', next))
  return next
end

local leased = {}
for i, tenant in ipairs(tenants) do
  local due = KEYS[4 + i]
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, tenant[2])
  for _, id in ipairs(ids) do
    redis.call('ZADD', due, till, id)
    redis.call('ZADD', KEYS[4], 'XX', till, id .. ' ' .. tenant[1])
    leased[#leased + 1] = { i, id, fence(id .. ' ' .. tenant[1]) }
  end
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
  if first then
    local again = #ids > 0 and tenant[3] or now + 1
    if tonumber(first) > again then again = tonumber(first) end
    redis.call('ZADD', KEYS[1], string.format('%.17g', again), tenant[1])
  else
    redis.call('ZREM', KEYS[1], tenant[1])
  end
end
local answer = cmsgpack.pack(leased)
redis.call('HSET', KEYS[3], 'n', string.format('%.0f', number), 'a', answer)
redis.call('EXPIRE', KEYS[3], 3600) -- of a process that is gone: nothing hangs on it after two seconds
return { nonce, answer }
