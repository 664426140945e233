-- Leases due deliveries of a shard's endpoints: those that are named, if they are still due.
--
-- KEYS     turns of endpoints, this process' last answer, then fences and queues
-- ARGV[1]  msgpack: {number, stamp, now, till, {fences, queue, turn, id...}...}
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: {endpoint's place, id, fence}...
--
-- As with jobs, the answer is kept under its number.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local number, stamp, now, till, endpoints = ask[1], ask[2], ask[3], ask[4], ask[5]
local time = redis.call('TIME')
if stamp < time[1] * 1000 + math.floor(time[2] / 1000) - 2000 then
  return redis.error_reply('LATE nobody waits for this any more')
end
local types = { [KEYS[1]] = 'zset', [KEYS[2]] = 'hash' }
for _, e in ipairs(endpoints) do
  types[KEYS[e[1]]], types[KEYS[e[2]]] = 'hash', 'zset'
end
for _, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= types[key] then return redis.error_reply('MISTYPED a key is a ' .. is) end
end

local kept = redis.call('HMGET', KEYS[2], 'm', 'b')
if kept[1] and tonumber(kept[1]) == number then return { nonce, kept[2] } end

local leased = {}
for i, e in ipairs(endpoints) do
  local fences, queue = KEYS[e[1]], KEYS[e[2]]
  for at = 4, #e do
    local due = redis.call('ZSCORE', queue, e[at])
    if due and tonumber(due) <= now then
      redis.call('ZADD', queue, till, e[at])
      leased[#leased + 1] = { i, e[at], redis.call('HINCRBY', fences, e[at], 1) }
    end
  end
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2]
  if first then redis.call('ZADD', KEYS[1], first, e[3]) else redis.call('ZREM', KEYS[1], e[3]) end
end
local answer = cmsgpack.pack(leased)
redis.call('HSET', KEYS[2], 'm', string.format('%.0f', number), 'b', answer)
redis.call('EXPIRE', KEYS[2], 3600) -- of a process that is gone: nothing hangs on it after two seconds
return { nonce, answer }
